//go:build !goexperiment.runtimesecret

package secret

// Do runs f. Built with GOEXPERIMENT=runtimesecret it also erases the registers,
// stack and heap that f used for intermediate values. Results must go into
// memory that the caller allocated, such as a [Secret].
func Do(f func()) { f() }
