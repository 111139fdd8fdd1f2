package luks2_test

import (
	"errors"
	"sync"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
)

// TestReservedMemoryOpensKeyslots, also after a wrong passphrase, for several at once,
// and when it was given back in the meantime.
func TestReservedMemoryOpensKeyslots(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) {
		o.KDF = luks2.KDF{Type: luks2.KDFArgon2id, Time: 4, MemoryKiB: 8 << 10, Parallel: 2}
	}))
	d := v.Device
	h := header(t, d)
	release := d.Reserve(h)
	second := d.Reserve(h) // takes the place of the first
	defer second()
	if !d.HasReserved() {
		t.Error("nothing is reserved")
	}
	if _, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, text(t, "wrong")); !errors.Is(err, luks2.ErrNoKey) {
		t.Errorf("wrong passphrase: %v", err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			key, err := d.OpenKeyslot(t.Context(), 0, text(t, v.Passphrase))
			if err != nil {
				t.Error(err)
				return
			}
			key.Wipe()
		})
	}
	release()
	if !d.HasReserved() {
		t.Error("the first release took the second reserve")
	}
	second()
	all.Wait()
	if d.HasReserved() {
		t.Error("it is offered after its release")
	}
	unlocked(t, d, v.Passphrase)
}

// TestNothingIsReservedWithoutNeed: PBKDF2 needs no memory.
func TestNothingIsReservedWithoutNeed(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	release := v.Device.Reserve(header(t, v.Device))
	if v.Device.HasReserved() {
		t.Error("memory is reserved for PBKDF2")
	}
	release()
	unlocked(t, v.Device, v.Passphrase)
}
