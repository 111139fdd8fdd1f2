package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// TestDeniedCallIsPrintedForRoot: what is to be pasted has every word of the call, but
// never a PIN.
func TestDeniedCallIsPrintedForRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		testenv.NotApplicable(t, "only root can be somebody else")
	}
	v := luks2test.New(t)
	dir, err := os.MkdirTemp("", "denied")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path, program := filepath.Join(dir, "my disk"), filepath.Join(dir, "cryptenroll")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{v.Path: path, exe: program} {
		testenv.Run(t, "cp", from, to)
	}
	for name, mode := range map[string]os.FileMode{dir: 0o755, program: 0o755, path: 0o600} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid uint32, script string, args ...string) result {
		cmd := exec.Command(script, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LUKSMITH_TEST_COMMAND=1", "PATH="+dir+":"+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return runCommand(t, cmd)
	}
	got := as(65534, program, "label", path, "0", "a name")
	_, call, ok := strings.Cut(got.stderr, "hint: try again as root: sudo ")
	if !ok || got.status == 0 {
		t.Fatalf("status %d: %s", got.status, got.stderr)
	}
	if pasted := as(0, "sh", "-c", call); pasted.status != 0 || !strings.Contains(as(0, program, path).stdout, "a name") {
		t.Errorf("pasted: %q: status %d, %s", call, pasted.status, pasted.stderr)
	}
	got = as(65534, program, "--pkcs11-token-uri=pkcs11:object=x?pin-value=1234", path)
	if !strings.Contains(got.stderr, "hint: try again as root\n") || strings.Contains(got.stderr, "1234") {
		t.Errorf("status %d: %s", got.status, got.stderr)
	}
	if len(hostTree.blockDevices()) > 0 {
		got = as(65534, program, "--list-devices")
		if !strings.Contains(got.stderr, "warning: these could not be read (permission denied) and are left out: /dev/") {
			t.Errorf("--list-devices: status %d: %s", got.status, got.stderr)
		}
	}
}
