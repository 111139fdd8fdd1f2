package main

import (
	"testing"

	"luksmith/internal/test/luks2test"
)

// TestWaitingForALockIsSaid: another program that had the header locked kept a person
// waiting without a word.
func TestWaitingForALockIsSaid(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	release := hold(t, v.Path)
	p := sit(t, "label", v.Path, "0", "x")
	p.sees(`Waiting for another program, which has the header of .* locked\.`)
	release()
	p.sees(`Named: keyslot 0 \(password, "x"\)`)
	p.ends(0)
}
