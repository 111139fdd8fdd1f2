package luks2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// falsifier changes what is written to one area before it reaches the disk.
type falsifier struct {
	storage
	from, to int64
}

func (f *falsifier) WriteAt(p []byte, off int64) (int, error) {
	if off >= f.from && off < f.to {
		p = bytes.Clone(p)
		p[len(p)/2] ^= 1
	}
	return f.storage.WriteAt(p, off)
}

// TestNothingIsWipedWhenAnotherKeyIsReadBack than the new keyslot was made for.
func TestNothingIsWipedWhenAnotherKeyIsReadBack(t *testing.T) {
	t.Parallel()
	v := newCrashVolume(t)
	const area = 258048
	v.d.observe = func(s storage) storage { return &falsifier{s, 32<<10 + 2*area, 32<<10 + 3*area} }
	err := v.d.Update(t.Context(), v.replace)
	if err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("the update ended with %v", err)
	}
	v.d.observe = nil
	old := secret.Copy([]byte("old"))
	defer old.Wipe()
	key, err := v.d.OpenKeyslot(t.Context(), 1, old)
	if err != nil {
		t.Fatal(err)
	}
	key.Wipe()
}

// TestALongKeyAreaIsWipedToItsEnd: one of a volume key of 128 bytes has 512000.
func TestALongKeyAreaIsWipedToItsEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "volume.img")
	first := secret.Copy([]byte("first"))
	defer first.Wipe()
	d, err := Format(t.Context(), path, &FormatOptions{Passphrase: first, KDF: MinimalKDF, KeySize: 128, CreateSize: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Update(t.Context(), func(tx *Tx) error { return tx.RemoveKeyslot(0) }); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a := h.Keyslots[0].Area
	if a.Size <= 2*wipeBlock-sectorSize*100 {
		t.Logf("an area of %d bytes", a.Size)
	}
	for at := a.Offset; at < a.Offset+a.Size; at += sectorSize {
		if bytes.Equal(before[at:at+sectorSize], after[at:at+sectorSize]) {
			t.Fatalf("byte %d of %d is as before", at-a.Offset, a.Size)
		}
	}
}

// TestALockFileThatWasRemovedMeanwhileCountsForNothing: its last holder unlinks it,
// and who opened it before would share the device with the holder of a new one.
func TestALockFileThatWasRemovedMeanwhileCountsForNothing(t *testing.T) {
	testenv.NeedRoot(t)
	lock := fmt.Sprintf("L_luksmith-test-%d", os.Getpid())
	hold := func() *lockFile {
		l, err := openLockFile(lock)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(l.fd, unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		return l
	}
	old := hold()
	waited := make(chan error)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	go func() {
		l, err := takeNamedLock(ctx, lock, unix.LOCK_EX, "the test")
		if err == nil {
			l.release()
		}
		waited <- err
	}()
	time.Sleep(300 * time.Millisecond) // until the other has the old file open
	if err := unix.Unlinkat(old.dir, lock, 0); err != nil {
		t.Fatal(err)
	}
	current := hold()
	defer current.release()
	old.close()
	if err := <-waited; !errors.Is(err, ErrBusy) {
		t.Errorf("the lock of a removed file was taken: %v", err)
	}
}
