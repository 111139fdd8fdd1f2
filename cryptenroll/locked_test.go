package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
)

// TestWaitingForALockIsSaid: another program that had the header locked kept a person
// waiting without a word.
func TestWaitingForALockIsSaid(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	f, err := os.Open(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	p := sit(t, "label", v.Path, "0", "x")
	p.sees(`Waiting for another program, which has the header of .* locked\.`)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	p.sees(`Named: keyslot 0 \(password, "x"\)`)
	p.ends(0)
}
