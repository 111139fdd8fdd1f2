package luks2_test

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// TestAnotherVersionIsNotRepaired: a primary copy with the magic and version 3 was
// taken for damaged, and the next writer put version 2 over it.
func TestAnotherVersionIsNotRepaired(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	writeAt(t, v.Path, []byte{0, 3}, 6)
	before := readFile(t, v.Path)
	_, err := v.Device.Header(t.Context())
	var malformed *luks2.FormatError
	if !errors.As(err, &malformed) || malformed.Field != "version" {
		t.Errorf("reading: %v", err)
	}
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { tx.Rewrite(); return nil }); err == nil {
		t.Error("it was written to")
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
}

// TestNewKeyslotsAreReadBackFromTheDevice and not from the page cache: of the old
// keyslots' areas, which nobody reads, nothing is left in it.
func TestNewKeyslotsAreReadBackFromTheDevice(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	var fs unix.Statfs_t
	if err := unix.Statfs(v.Path, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		testenv.NotApplicable(t, "temporary files are on a file system in memory")
	}
	v.Enroll(t, "old", luks2.Token{Type: "x"})
	readFile(t, v.Path) // all of it is cached now
	key, passphrase := unlocked(t, v.Device, v.Passphrase), text(t, "new")
	update(t, v.Device, func(tx *luks2.Tx) error {
		if _, err := tx.AddKeyslot(key, passphrase, luks2.MinimalKDF); err != nil {
			return err
		}
		return tx.RemoveKeyslotAndTokens(1)
	})
	if cached(t, v.Path) {
		t.Error("the page cache was kept")
	}
}

// cached reports whether the middle of the image, which no writer touches, is in
// the page cache.
func cached(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const at = 8 << 20
	page := unix.Getpagesize()
	m, err := unix.Mmap(int(f.Fd()), at, page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	state := make([]byte, 1)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(page), uintptr(unsafe.Pointer(&state[0])))
	if errno != 0 {
		testenv.NotApplicable(t, "no mincore: "+errno.Error())
	}
	return state[0]&1 != 0
}
