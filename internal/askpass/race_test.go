//go:build race

package askpass

// raceDetector keeps a copy of the environment and terabytes of shadow memory.
const raceDetector = true
