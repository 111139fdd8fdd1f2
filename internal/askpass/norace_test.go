//go:build !race

package askpass

const raceDetector = false
