package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	for _, text := range []string{"old", "new"} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	full := filepath.Join(folder, "full")
	if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(full, []byte("x")); err == nil {
		t.Error("a folder was replaced")
	}
	if list, err := os.ReadDir(folder); err != nil || len(list) != 2 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if err := Replace(filepath.Join(folder, "none", "file"), nil); err == nil {
		t.Error("written into no folder")
	}
}
