package e2e

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"luksmith/internal/test/testenv"
)

// build compiles a package of the module into a static program and returns its
// path: the two commands as the Makefile does, because their size and speed are
// looked at. Each package is built once per test run, in a folder that Main
// removes.
func build(t testing.TB, pkg string) string {
	t.Helper()
	name := filepath.Base(pkg)
	return artefact(t, name, func(out string) error {
		if pkg == "./"+name && strings.HasPrefix(name, "crypt") {
			return atRoot("make", "-s", "commands", "COMMANDS="+name, "BUILD="+filepath.Dir(out))
		}
		return goCommand("build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	})
}

// artefacts are the files that this run has made, by name.
type artefacts struct {
	mu   sync.Mutex
	dir  string
	made map[string]func() error
}

var made artefacts

// artefact returns the path of a file that make writes at the first call.
func artefact(t testing.TB, name string, create func(path string) error) string {
	t.Helper()
	made.mu.Lock()
	if made.dir == "" {
		dir, err := os.MkdirTemp("", "e2e.")
		if err != nil {
			made.mu.Unlock()
			t.Fatal(err)
		}
		made.dir, made.made = dir, map[string]func() error{}
	}
	out := filepath.Join(made.dir, name)
	once := made.made[name]
	if once == nil {
		once = sync.OnceValue(func() error { return create(out) })
		made.made[name] = once
	}
	made.mu.Unlock()
	if err := once(); err != nil {
		t.Fatal(err)
	}
	return out
}

// goCommand runs the go tool at the root of the module.
func goCommand(args ...string) error { return atRoot("go", args...) }

func atRoot(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return &commandError{strings.Join(cmd.Args, " "), err, out}
	}
	return nil
}

type commandError struct {
	command string
	err     error
	output  []byte
}

func (e *commandError) Error() string {
	return e.command + ": " + e.err.Error() + "\n" + string(e.output)
}
func (e *commandError) Unwrap() error { return e.err }

// baseInitrd returns the path of the archive that all guests share: PID 1,
// busybox under all its names, kernel modules, cryptsetup and dmsetup.
func baseInitrd(t testing.TB, k *kernel) string {
	t.Helper()
	testenv.Need(t, "busybox", "cryptsetup", "dmsetup")
	init := build(t, "./e2e/guest")
	return artefact(t, "base.cpio", func(out string) error {
		a := newArchive()
		if err := a.addSkeleton(init); err != nil {
			return err
		}
		if err := a.addModules(k, guestModules()); err != nil {
			return err
		}
		for _, p := range []string{"cryptsetup", "dmsetup"} {
			file, err := exec.LookPath(p)
			if err != nil {
				return err
			}
			// pthread_cancel opens libgcc_s when it is first used.
			if err := a.addProgram("/", file, "/lib/x86_64-linux-gnu/libgcc_s.so.1"); err != nil {
				return err
			}
		}
		return os.WriteFile(out, a.bytes(), 0o600)
	})
}

// addSkeleton adds the folders of a merged-/usr system, PID 1 and busybox.
func (a *archive) addSkeleton(init string) error {
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/lib"} {
		a.dir(dir)
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		a.link(dir, "usr/"+dir)
	}
	a.link("var/run", "../run")
	data, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	a.file("init", 0o755, data)
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\n"))
	return a.addBusybox()
}

func (a *archive) addBusybox() error {
	file, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	a.file("usr/bin/busybox", 0o755, data)
	applets, err := exec.Command(file, "--list").Output()
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			a.link("usr/bin/"+name, "busybox")
		}
	}
	a.link("usr/sbin/modprobe", "../bin/busybox") // request_module() calls /sbin/modprobe
	return nil
}

// addProgram adds files of a tree, each with the libraries that it needs.
func (a *archive) addProgram(from tree, files ...string) error {
	all, err := from.closure(files...)
	if err != nil {
		return err
	}
	for _, f := range all {
		if a.have[merged(f)] {
			continue
		}
		a.have[merged(f)] = true
		if err := a.copyFile(merged(f), from.path(f)); err != nil {
			return err
		}
	}
	return nil
}

// copyFile adds a file of the host, or a folder with all that is in it.
func (a *archive) copyFile(name, host string) error {
	st, err := os.Stat(host)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		data, err := os.ReadFile(host)
		if err != nil {
			return err
		}
		a.file(name, int(st.Mode().Perm()), data)
		return nil
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return err
	}
	a.dir(name)
	for _, e := range entries {
		if err := a.copyFile(path.Join(name, e.Name()), filepath.Join(host, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
