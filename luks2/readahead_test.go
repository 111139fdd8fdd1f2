package luks2_test

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// TestNothingIsReadAhead counts the pages of a volume that are in memory after a
// keyslot was opened: those of the header and of one key area.
func TestNothingIsReadAhead(t *testing.T) {
	v := luks2test.New(t, luks2test.WithPassphrase("p"))
	f, err := os.OpenFile(v.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole, err := os.ReadFile(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(whole, 0); err != nil { // without holes, which are no pages
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, f, len(whole)); n > 0 {
		testenv.NotApplicable(t, "the file system keeps its files in memory")
	}
	d, err := luks2.Open(v.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	passphrase := secret.Copy([]byte("p"))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	key.Wipe()
	const header, area, ends = 2 * 16 << 10, 64 * 4000, 2 // pages that are begun
	if n, most := resident(t, f, len(whole)), (header+area)/os.Getpagesize()+ends; n > most {
		t.Errorf("%d pages were read, %d are needed", n, most)
	}
}

// resident is how many pages of a file are in memory.
func resident(t *testing.T, f *os.File, size int) (n int) {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	in := make([]byte, (size+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		t.Fatal(errno)
	}
	for _, b := range in {
		n += int(b & 1)
	}
	return n
}
