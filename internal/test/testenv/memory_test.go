package testenv

import (
	"runtime"
	"testing"

	"luksmith/luks2/secret"
)

func TestCopiesFindsHeapAndLockedMemory(t *testing.T) {
	s := secret.Random(24)
	inverted := Inverted(s.Bytes())
	onHeap := append(make([]byte, 0, 64), s.Bytes()...)
	if n := Copies(t, inverted); n != 2 {
		t.Errorf("%d copies of a secret and a slice, want 2", n)
	}
	secret.Wipe(onHeap)
	s.Wipe()
	if n := Copies(t, inverted); n != 0 {
		t.Errorf("%d copies after wiping, want 0", n)
	}
	runtime.KeepAlive(onHeap)
}
