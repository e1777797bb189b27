//go:build race

package control

// raceDetector makes the longest tests smaller: make test runs them whole without it.
const raceDetector = true
