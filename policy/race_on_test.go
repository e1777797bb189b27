//go:build race

package policy

// raceDetector makes the longest tests smaller.
const raceDetector = true
