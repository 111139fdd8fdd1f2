package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tree is the root of another Debian release, for the systemd that it holds.
// .ci/install-deps unpacks it.
type Tree struct {
	Root string
	dir  string // of this test, seen from outside
}

// HasSystemd257 reports whether [Systemd257] skips no test: for scripts, which skip
// themselves.
func HasSystemd257() bool {
	_, err := debian13()
	return err == nil && os.Geteuid() == 0
}

// debian13 is where the tree is.
func debian13() (root string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder for the Debian 13 tree: %w", err)
	}
	root = filepath.Join(cache, "luksmith", "debian-13")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/systemd-cryptenroll")); err != nil {
		return "", fmt.Errorf("no Debian 13 tree in %s: .ci/install-deps could not fetch it", root)
	}
	return root, nil
}

// Systemd257 returns the tree with systemd 257 (Debian 13). Tests are skipped as
// not applicable when it could not be fetched, because the mirror is out of reach.
func Systemd257(t testing.TB) *Tree {
	t.Helper()
	NeedRoot(t)
	root, err := debian13()
	if err != nil {
		NotApplicable(t, err.Error())
	}
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "test.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Tree{Root: root, dir: dir}
}

// Dir is a folder of the test's own inside the tree, as seen from outside.
func (tr *Tree) Dir() string { return tr.dir }

// Inside turns a path below Root into the one that programs in the tree see.
func (tr *Tree) Inside(path string) string { return strings.TrimPrefix(path, tr.Root) }

// Command prepares a program of the tree, chrooted into it. The environment is
// empty but for PATH and the given variables.
func (tr *Tree) Command(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command("chroot", append([]string{tr.Root, name}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}, env...)
	return cmd
}

// Outside is the command line of a program of the tree that runs outside of it, with
// the tree's libraries.
func (tr *Tree) Outside(t testing.TB, name string) []string {
	t.Helper()
	loaders, err := filepath.Glob(filepath.Join(tr.Root, "usr/lib/*-linux-gnu*/ld-linux*.so.*"))
	if err != nil || len(loaders) == 0 {
		NotApplicable(t, "no dynamic loader in the Debian 13 tree")
	}
	lib := filepath.Dir(loaders[0])
	return []string{loaders[0], "--library-path", lib + ":" + filepath.Join(lib, "systemd"), filepath.Join(tr.Root, "usr/bin", name)}
}

// NeedProgram skips a test when the tree was unpacked without a program.
func (tr *Tree) NeedProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(tr.Root, "usr/bin", name)); err != nil {
		NotApplicable(t, "no "+name+" in the Debian 13 tree: .ci/install-deps could not fetch it")
	}
}

// CommandWithProc is Command for a program that needs /proc.
func (tr *Tree) CommandWithProc(env []string, name string, args ...string) *exec.Cmd {
	cmd := tr.Command(env, name, args...)
	mount := exec.Command("unshare", append([]string{"--mount", "sh", "-c", `mount --bind /proc "$1/proc" && shift && exec "$@"`, "sh", tr.Root}, cmd.Args...)...)
	mount.Env = cmd.Env
	return mount
}
