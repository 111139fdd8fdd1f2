//go:build goexperiment.runtimesecret

package secret

import rtsecret "runtime/secret"

// ErasesHeap says whether [Do] erases what f allocated on the heap, in this build.
const ErasesHeap = true

// Do runs f and has the runtime erase the registers, stack and heap that f used
// for intermediate values, where the toolchain was built with
// GOEXPERIMENT=runtimesecret; elsewhere it only runs f. Results must go into
// memory that the caller allocated, such as a [Secret].
func Do(f func()) { rtsecret.Do(f) }
