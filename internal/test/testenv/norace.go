//go:build !race

package testenv

// RaceDetector says that the tests run with the race detector.
const RaceDetector = false
