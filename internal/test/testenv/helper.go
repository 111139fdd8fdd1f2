package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Helper builds one of the helper programs when a test first needs it. Make one for
// a test package, in a variable, and call Remove at the end of its TestMain.
type Helper struct {
	name string
	cgo  bool
	once sync.Once
	dir  string // holds the program
	err  error
}

// NewHelper is for a program with a C library, such as "luksmith-pkcs11". It is
// built with cgo.
func NewHelper(name string) *Helper { return &Helper{name: name, cgo: true} }

// NewStaticHelper is for a program in nothing but Go, such as "luksmith-sheet". It
// is built without cgo.
func NewStaticHelper(name string) *Helper { return &Helper{name: name} }

// Path is the program, built without the race detector.
func (h *Helper) Path(t testing.TB) string {
	t.Helper()
	if h.cgo {
		Need(t, "gcc")
	}
	h.once.Do(h.build)
	if h.err != nil {
		t.Fatal(h.err)
	}
	return filepath.Join(h.dir, h.name)
}

func (h *Helper) build() {
	// Not a folder of the test that asks first: others need the program, too.
	if h.dir, h.err = os.MkdirTemp("", h.name+"."); h.err != nil {
		return
	}
	cgo := "0"
	if h.cgo {
		cgo = "1"
	}
	cmd := exec.Command("go", "build", "-o", h.dir, "luksmith/.../"+h.name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
}

// Remove deletes the program.
func (h *Helper) Remove() {
	if h.dir != "" {
		_ = os.RemoveAll(h.dir)
	}
}

// WithEnv returns a program that is the given one with more in its environment:
// tests that run beside each other cannot set their own. It has the same name.
func WithEnv(t testing.TB, program string, env ...string) string {
	t.Helper()
	var script strings.Builder
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&script, "export %s=%s\n", name, quote(value))
	}
	fmt.Fprintf(&script, "exec %s\n", quote(program))
	return Script(t, filepath.Base(program), script.String())
}

// Script returns a program of that name which is a shell script.
func Script(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	// No other test may fork while the file is open for writing: its child would
	// keep it open, and starting the program would fail with "text file busy".
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
