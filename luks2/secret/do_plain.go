//go:build !goexperiment.runtimesecret

package secret

import "runtime"

// ErasesHeap says whether [Do] erases what f allocated on the heap, in this build.
const ErasesHeap = false

// Do runs f and then overwrites the stack that f used, down to 48 KiB, and the
// vector registers. Built with GOEXPERIMENT=runtimesecret the runtime does that,
// to any depth, and erases what f allocated on the heap. Results must go into
// memory that the caller allocated, such as a [Secret].
func Do(f func()) {
	defer scrubRegisters()
	defer clearStack()
	roomy(f)
}

const (
	room  = 32 << 10
	depth = 16 << 10 // below the room, for f
)

// roomy runs f far down the stack. It grows before f runs, and with so much in use
// the garbage collector does not shrink it while f runs: either would leave a copy
// behind.
//
//go:noinline
func roomy(f func()) {
	var unused [room]byte
	f()
	runtime.KeepAlive(&unused)
}

// clearStack overwrites where roomy and what it called have been.
//
//go:noinline
func clearStack() {
	var frame [room + depth]byte
	Wipe(frame[:])
}
