package secret_test

import (
	"runtime"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// leave puts a copy of b on its stack.
//
//go:noinline
func leave(b []byte) byte {
	var local [64]byte
	copy(local[:], b)
	runtime.KeepAlive(&local)
	return local[len(b)-1]
}

// TestDoClearsTheStack of what the function left there.
func TestDoClearsTheStack(t *testing.T) {
	s := secret.Random(40)
	defer s.Wipe()
	needle := testenv.Inverted(s.Bytes()[:32])
	secret.Do(func() { leave(s.Bytes()) })
	if n := testenv.Copies(t, needle); n != 1 {
		t.Errorf("the secret is there %d times instead of once", n)
	}
}
