package esp

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/petest"
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
	sum, err := f.(*file).SHA256()
	if err != nil || sum != sha256.Sum256(kernel) || f.Size() != int64(len(kernel)) {
		t.Errorf("%x, %v", sum, err)
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
