package e2e

import (
	"path/filepath"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestA32BitProgramAttaches: its system calls have other numbers and structures of
// other sizes, also where it waits for udev.
func TestA32BitProgramAttaches(t *testing.T) {
	if !testenv.EndToEnd() {
		t.Skip("builds for another processor: make e2e")
	}
	testenv.Need(t, "make")
	s, dir := makeSample(t), t.TempDir()
	if err := atRoot("env", "GOARCH=386", "make", "-s", "commands", "COMMANDS=cryptsetup-unit", "BUILD="+dir); err != nil {
		t.Fatal(err)
	}
	vm := udevGuest(t)
	u := &unit{vm, "/run/unit"}
	vm.Shell(t, "cp "+vm.Push(t, filepath.Join(dir, "cryptsetup-unit"))+" "+u.path)
	vm.WriteFile(t, "/run/test-key", []byte(passphrase), 0o600)
	vm.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.attach(t, "vol", "UUID="+s.uuid, "/run/test-key", "luks")
	if got := u.contents(t, "vol"); got != inside {
		t.Errorf("mapped: %q", got)
	}
	if left := vm.Shell(t, "dmsetup udevcookies | tail -n +2").Stdout; left != "" {
		t.Errorf("semaphores are left:\n%s", left)
	}
}
