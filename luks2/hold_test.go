package luks2_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// exchange puts another file under a path, as a disk that takes over the name of
// one that was pulled out.
func exchange(t *testing.T, path, other string) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "other")
	b, err := os.ReadFile(other)
	if err == nil {
		err = os.WriteFile(copied, b, 0o600)
	}
	if err == nil {
		err = os.Rename(copied, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// opened is a volume whose header was read before its path came to mean another.
func opened(t *testing.T, o *luks2.OpenOptions, v, other *luks2test.Volume) (*luks2.Device, *luks2.Header) {
	t.Helper()
	o.Header = v.HeaderPath
	d, err := luks2.Open(v.Path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, v.Path, other.Path)
	return d, h
}

// TestTheKeyOfAnExchangedDiskIsNotConfirmed: the question was asked for one disk,
// and another with the same passphrase stood there when it was answered.
func TestTheKeyOfAnExchangedDiskIsNotConfirmed(t *testing.T) {
	t.Parallel()
	v, other := luks2test.New(t), luks2test.New(t)
	d, h := opened(t, &luks2.OpenOptions{ReadOnly: true}, v, other)
	passphrase := secret.Copy([]byte(luks2test.Passphrase))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	if err := d.Confirm(t.Context(), h, key); !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("a key of another volume: %v", err)
	}
}

// TestAHeldVolumeStaysTheOneThatWasOpened whatever its path means, with the header
// on it or detached, and its data comes from the same file.
func TestAHeldVolumeStaysTheOneThatWasOpened(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]luks2test.Option{"attached": nil, "detached": {luks2test.WithDetachedHeader()}} {
		v, other := luks2test.New(t, options...), luks2test.New(t)
		before, err := os.Stat(v.Path)
		if err != nil {
			t.Fatal(err)
		}
		d, h := opened(t, &luks2.OpenOptions{ReadOnly: true, Hold: true}, v, other)
		passphrase := secret.Copy([]byte(luks2test.Passphrase))
		defer passphrase.Wipe()
		key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		defer key.Wipe()
		if err := d.Confirm(t.Context(), h, key); err != nil || h.UUID != v.UUID {
			t.Errorf("%s: %v, UUID %s", name, err, h.UUID)
		}
		f, err := d.OpenData()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if now, err := f.Stat(); err != nil || !os.SameFile(before, now) || f.Name() != v.Path {
			t.Errorf("%s: the data comes from elsewhere: %v", name, err)
		}
	}
}

// TestAnotherHeaderOnAHeldDeviceIsRefused, as after a medium was exchanged in its
// drive: by a key that is asked for then and by one that was found before.
func TestAnotherHeaderOnAHeldDeviceIsRefused(t *testing.T) {
	t.Parallel()
	v, other := luks2test.New(t), luks2test.New(t)
	d, err := luks2.Open(v.Path, &luks2.OpenOptions{ReadOnly: true, Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	passphrase := secret.Copy([]byte(luks2test.Passphrase))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	b, err := os.ReadFile(other.Path)
	if err == nil {
		err = os.WriteFile(v.Path, b, 0o600) // the same file, other content
	}
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase); !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("opening: %v, %v", again, err)
	}
	if err := d.Confirm(t.Context(), h, key); !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("confirming: %v", err)
	}
}

// TestKeyslotsMayChangeBehindAHeldVolume without its key being refused.
func TestKeyslotsMayChangeBehindAHeldVolume(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	d, err := luks2.Open(v.Path, &luks2.OpenOptions{Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
	passphrase := secret.Copy([]byte("second"))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	if err := d.Confirm(t.Context(), h, key); err != nil {
		t.Error(err)
	}
	if err := d.Update(t.Context(), func(tx *luks2.Tx) error { return tx.SetLabel("written while held", "") }); err != nil {
		t.Error(err)
	}
}
