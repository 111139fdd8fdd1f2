package sheet

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/testenv"
	"luksmith/tokens"
)

func TestFileIsPrivate(t *testing.T) {
	for _, f := range []Format{PDF, PNG} {
		info, err := os.Stat(write(t, sample(t), f))
		if err != nil || info.Mode() != 0o600 || info.Size() < 10000 {
			t.Errorf("%v, mode %v, %d bytes", err, info.Mode(), info.Size())
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "s.pdf"), filepath.Join(dir, "link.png")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o644), os.Symlink(filepath.Join(dir, "elsewhere"), link)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		f, err := Create(p)
		if !errors.Is(err, fs.ErrExist) || f != nil || !strings.HasSuffix(err.Error(), "it is not overwritten") {
			t.Errorf("%s: %v", p, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target of the link: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"s", "s.jpg", "pdf", "s.pdf.gz"} {
		if _, err := Create(filepath.Join(dir, name)); !errors.Is(err, tokens.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
	if _, err := Create(filepath.Join(dir, "none", "s.pdf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if f, err := Create(filepath.Join(dir, "S.PDF")); err != nil {
		t.Errorf("upper case: %v", err)
	} else {
		f.Discard()
	}
}

func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.pdf")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Discard()
	f.Discard()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unused file is still there: %v", err)
	}
	f, err = Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(sample(t)); err != nil {
		t.Fatal(err)
	}
	f.Discard()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("Discard after Write: %v", err)
	}
}

func TestFullDiskLeavesNoFile(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		testenv.NotApplicable(t, "no tmpfs can be mounted: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	for _, name := range []string{"s.pdf", "s.png"} {
		path := filepath.Join(dir, name)
		f, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Write(sample(t))
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want no space left", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("half a sheet is left: %v", err)
		}
	}
}

func TestUsualPaper(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want Paper
	}{
		{nil, A4},
		{map[string]string{"LANG": "C.UTF-8"}, A4},
		{map[string]string{"LANG": "en_US.UTF-8"}, Letter},
		{map[string]string{"LANG": "de_DE.UTF-8@euro"}, A4},
		{map[string]string{"LANG": "fr_CA"}, Letter},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_PAPER": "en_GB.UTF-8"}, A4},
		{map[string]string{"LC_PAPER": "en_GB.UTF-8", "LC_ALL": "es_MX@x"}, Letter},
		{map[string]string{"LANG": "en_US.UTF-8", "PAPERSIZE": "a4"}, A4},
		{map[string]string{"PAPERSIZE": "Letter"}, Letter},
	} {
		if got := UsualPaper(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %d, want %d", c.env, got, c.want)
		}
	}
}
