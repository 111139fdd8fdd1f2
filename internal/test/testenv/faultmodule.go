package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// FaultModule compiles the PKCS#11 module with faults when a test first needs it:
// SoftHSM's, with one thing wrong. Make one for a test package, in a variable, and
// call Remove at the end of its TestMain.
type FaultModule struct {
	once sync.Once
	dir  string
	err  error
}

// Path is the module.
func (m *FaultModule) Path(t testing.TB) string {
	t.Helper()
	Need(t, "gcc")
	m.once.Do(func() { m.err = m.compile() })
	if m.err != nil {
		t.Fatal(m.err)
	}
	return filepath.Join(m.dir, "fault.so")
}

func (m *FaultModule) compile() error {
	folders, err := exec.Command("go", "list", "-f", "{{.Dir}}", "luksmith/tokens/pkcs11", "github.com/miekg/pkcs11").Output()
	if err != nil {
		return err
	}
	ours, headers, _ := strings.Cut(strings.TrimSpace(string(folders)), "\n")
	if m.dir, err = os.MkdirTemp("", "fault."); err != nil {
		return err
	}
	out, err := exec.Command("gcc", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-shared", "-fPIC",
		"-I"+headers, "-o", filepath.Join(m.dir, "fault.so"), filepath.Join(ours, "testdata", "fault", "fault.c"), "-ldl").CombinedOutput()
	if err != nil {
		return fmt.Errorf("compiling fault.c: %w\n%s", err, out)
	}
	return nil
}

// Env is the environment in which the module has a fault. The count of wrong PINs
// is kept in a file of its own.
func (m *FaultModule) Env(t testing.TB, store *SoftHSM, fault string) []string {
	t.Helper()
	return append([]string{"FAULT=" + fault, "FAULT_MODULE=" + store.Module,
		"FAULT_STATE=" + filepath.Join(t.TempDir(), "wrong")}, store.Env...)
}

// Remove deletes the module.
func (m *FaultModule) Remove() {
	if m.dir != "" {
		_ = os.RemoveAll(m.dir)
	}
}
