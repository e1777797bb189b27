//go:build race

package policy

// raceDetector makes the longest tests smaller: make test runs them whole without it.
const raceDetector = true
