package esp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/chain"
)

func disk(t *testing.T, files map[string][]byte) (*Disk, string) {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, dir
}

func TestCaseOfLettersDoesNotMatter(t *testing.T) {
	t.Parallel()
	kernel := petest.Kernel("6.12.1")
	d, _ := disk(t, map[string][]byte{"EFI/Linux/A.efi": kernel, "EFI/Linux/b.efi": kernel})
	f, err := d.Open("/efi/LINUX/a.EFI")
	if err != nil {
		t.Fatal(err)
	}
	h, want := sha256.New(), sha256.Sum256(kernel)
	if err := f.Hash(h); err != nil || !bytes.Equal(h.Sum(nil), want[:]) || f.Size() != int64(len(kernel)) {
		t.Errorf("%x, %v", h.Sum(nil), err)
	}
	if names, err := d.List("/Efi/linux"); err != nil || !slices.Equal(names, []string{"A.efi", "b.efi"}) {
		t.Errorf("%v, %v", names, err)
	}
	if names, err := d.List("/none"); err != nil || names != nil {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := d.Open("/EFI/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestOnlyFilesOfTheDiskAreRead(t *testing.T) {
	t.Parallel()
	d, dir := disk(t, map[string][]byte{"a": nil})
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/pipe", "/away", "/../etc/hostname"} {
		if _, err := d.Open(name); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
}

// TestContentIsReadOnce: the second time it comes from what was kept, also when more
// follows, and never when something is before it.
func TestContentIsReadOnce(t *testing.T) {
	t.Parallel()
	text := []byte("content of an initrd")
	image := petest.Image("257", petest.Kernel("6.12.1"), text, "quiet")
	d, dir := disk(t, map[string][]byte{"file": text, "image": image})
	f, err := d.Open("file")
	if err != nil {
		t.Fatal(err)
	}
	g, err := d.Open("image")
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Program()
	if err != nil {
		t.Fatal(err)
	}
	files := []chain.File{f}
	for _, s := range p.Sections() {
		if s.Name == ".initrd" {
			files = append(files, s.File)
		}
	}
	for i, f := range files {
		h := sha256.New()
		if err := f.Hash(h); err != nil {
			t.Fatal(err)
		}
		name := []string{"file", "image"}[i]
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, f.Size()), 0o600); err != nil { // which truncates
			t.Fatal(err)
		}
		again := sha256.New()
		if err := f.Hash(again); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again.Write([]byte("more"))
		want := sha256.Sum256(append(bytes.Clone(text), "more"...))
		if !bytes.Equal(again.Sum(nil), want[:]) {
			t.Errorf("%s: %x", name, again.Sum(nil))
		}
	}
	behind := sha256.New()
	behind.Write([]byte("before"))
	want := sha256.Sum256(append([]byte("before"), make([]byte, f.Size())...))
	if err := f.Hash(behind); err != nil || !bytes.Equal(behind.Sum(nil), want[:]) {
		t.Errorf("behind something else it is not read anew: %v", err)
	}
}
