package argon2id

import (
	"context"
	"testing"
)

// TestTheMemoryIsOverwritten before it goes back to the kernel, also when the
// computation ended early.
func TestTheMemoryIsOverwritten(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		f, err := newFilling(Params{Salt: make([]byte, 32), Time: 2, MemoryKiB: 4 << 10, Lanes: 3})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f.begin([]byte("passphrase"), 32)
		if early {
			cancel()
		}
		_ = f.fill(ctx)
		cancel()
		if f.memory[1] == (block{}) {
			t.Fatal("nothing was computed")
		}
		f.giveBack = func() {
			for i := range f.arena.blocks {
				if f.arena.blocks[i] != (block{}) {
					t.Errorf("ended early %v: block %d is not overwritten", early, i)
					break
				}
			}
		}
		f.free()
	}
}
