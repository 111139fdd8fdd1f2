package helper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Users of these tests that are nobody on any machine.
const (
	caller   = 54321
	stranger = 54322
)

// playFinder prints what find gives for the arguments: name, executable, folder of
// the system.
func playFinder() {
	path, err := find(os.Args[1], os.Args[2], os.Args[3])
	fmt.Printf("%s|%v", path, err)
	os.Exit(0)
}

// installation is a program with its helper, below a folder that is as free for all
// as /tmp: ROOT/build/cryptenroll, ROOT/lib/luksmith/luksmith-x, and a folder of the
// system that is empty.
type installation struct {
	root, exe, helper, system string
}

func install(t *testing.T, owner int) *installation {
	t.Helper()
	root := t.TempDir()
	i := &installation{root: root, exe: filepath.Join(root, "build/cryptenroll"),
		helper: filepath.Join(root, "lib/luksmith/luksmith-x"), system: filepath.Join(root, "system")}
	for _, path := range []string{i.exe, i.helper, filepath.Join(i.system, "other")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"build", "build/cryptenroll", "lib", "lib/luksmith", "lib/luksmith/luksmith-x"} {
		chown(t, filepath.Join(root, path), owner)
	}
	// Folders of the test itself, which other users of this test go through.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return i
}

func chown(t *testing.T, path string, owner int) {
	t.Helper()
	if err := os.Lchown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
}

// findAs is find in a process of another user.
func (i *installation) findAs(t *testing.T, uid int) (path, reason string) {
	t.Helper()
	finder := program(t, "finder")
	for dir := filepath.Dir(finder); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(finder, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(finder, "luksmith-x", i.exe, i.system)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path, reason, _ = strings.Cut(string(out), "|")
	return path, reason
}

func TestPlantedHelperIsNotRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not applicable here: only root can make files of other users")
	}
	for _, uid := range []int{0, caller} {
		for _, c := range []struct {
			name  string
			spoil func(i *installation)
			want  string // in the reason; "" if the helper may be run
		}{
			{"nobody else", func(*installation) {}, ""},
			{"root's helper", func(i *installation) {
				for path := i.helper; path != i.root; path = filepath.Dir(path) {
					chown(t, path, 0)
				}
			}, ""},
			{"whole folder is a stranger's", func(i *installation) {
				for path := i.helper; path != i.root; path = filepath.Dir(path) {
					chown(t, path, stranger)
				}
			}, "luksmith-x belongs to user 54322"},
			{"folder above is a stranger's", func(i *installation) { chown(t, filepath.Join(i.root, "lib"), stranger) }, "lib belongs to user 54322"},
			{"folder of the helper is a stranger's", func(i *installation) { chown(t, filepath.Dir(i.helper), stranger) }, "belongs to user 54322"},
			{"helper is a stranger's", func(i *installation) { chown(t, i.helper, stranger) }, "belongs to user 54322"},
			{"program is a stranger's", func(i *installation) { chown(t, i.exe, stranger) }, "nothing near"},
			{"folder of the program is a stranger's", func(i *installation) { chown(t, filepath.Dir(i.exe), stranger) }, "nothing near"},
			{"helper is writable", func(i *installation) { _ = os.Chmod(i.helper, 0o775) }, "is writable by others"},
			{"sticky helper is writable", func(i *installation) { _ = os.Chmod(i.helper, 0o777|os.ModeSticky) }, "is writable by others"},
			{"folder is writable", func(i *installation) { _ = os.Chmod(filepath.Dir(i.helper), 0o757) }, "is writable by others"},
			{"folder above is writable", func(i *installation) { _ = os.Chmod(filepath.Join(i.root, "lib"), 0o777) }, "is writable by others"},
			{"program is writable", func(i *installation) { _ = os.Chmod(i.exe, 0o775) }, "nothing near"},
			{"no sticky bit at the top", func(i *installation) { _ = os.Chmod(i.root, 0o777) }, "is writable by others"},
			{"link to a stranger's", func(i *installation) {
				evil := filepath.Join(i.root, "evil")
				_ = os.Rename(i.helper, evil)
				_ = os.Symlink(evil, i.helper)
				chown(t, evil, stranger)
			}, "evil belongs to user 54322"},
		} {
			i := install(t, uid)
			c.spoil(i)
			path, reason := i.findAs(t, uid)
			if c.want == "" && path != i.helper || c.want != "" && (path != "" || !strings.Contains(reason, c.want)) {
				t.Errorf("uid %d, %s: found %q: %s", uid, c.name, path, reason)
			}
		}
	}
}

func TestHelperOfTheCallerIsNotRunByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not applicable here: only root can make files of other users")
	}
	i := install(t, caller)
	if path, reason := i.findAs(t, 0); path != "" {
		t.Errorf("found %q: %s", path, reason)
	}
}

func TestRefusedHelperLeavesTheOneOfTheSystem(t *testing.T) {
	i := install(t, os.Geteuid())
	if err := os.Chmod(i.helper, 0o777); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(i.system, "luksmith-x")
	if err := os.WriteFile(good, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := find("luksmith-x", i.exe, i.system); path != good || err != nil {
		t.Errorf("found %q, %v", path, err)
	}
}

func TestDeletedProgramStillFindsItsHelper(t *testing.T) {
	i := install(t, os.Geteuid())
	if path, err := find("luksmith-x", i.exe+" (deleted)", i.system); path != i.helper || err != nil {
		t.Errorf("found %q, %v", path, err)
	}
}

func TestTrustedNamesTheCause(t *testing.T) {
	dir := t.TempDir()
	if _, err := Trusted(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Trusted(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
