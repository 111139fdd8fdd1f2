package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"luksmith/internal/testenv"
)

// testTarget has what encrypted volumes need and nothing else, for the sake of time.
const testTarget = `[Unit]
DefaultDependencies=no
Wants=systemd-journald.service systemd-udevd.service systemd-udev-trigger.service cryptsetup.target
After=cryptsetup.target
`

// TestSystemdCallsUsThroughTheDropIn boots Debian 13's systemd. Its generator makes
// the units of crypttab, the drop-in has them call cryptsetup-unit.
func TestSystemdCallsUsThroughTheDropIn(t *testing.T) {
	s := makeSample(t)
	tree := testenv.Systemd257(t)
	vm := Boot(t, Config{Tree: tree.Root, MemoryMiB: 1024, Modules: []string{"dm-crypt", "xts", "aesni-intel"}, Disks: []Disk{{Path: copyOf(t, s.image)}, {Path: otherUUID(t, copyOf(t, s.image), 1)}, {Path: otherUUID(t, copyOf(t, s.image), 2)}}})
	u := newUnit(t, vm)
	vm.PrepareRoot(t)
	dropIn := readFile(t, "../cryptsetup-unit/initrd/systemd/luksmith.conf")
	write := func(path, text string) { vm.WriteFile(t, "/newroot"+path, []byte(text), 0o600) }
	vm.Shell(t, "cp "+u.path+" /newroot/usr/local/bin/cryptsetup-unit; ln -sf test.target /newroot/etc/systemd/system/default.target")
	write("/etc/systemd/system/test.target", testTarget)
	write("/etc/keys/k", keyFile)
	write("/etc/fstab", "")
	write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	write("/etc/crypttab", fmt.Sprintf("file UUID=%s /etc/keys/k luks\nask\\x20me UUID=%s none password-cache=no\nshared UUID=%s none\n", s.uuid, uuidNumber(1), uuidNumber(2)))
	for _, instance := range []string{"file", `ask\x5cx20me`, "shared"} { // as systemd-escape spells them
		write("/etc/systemd/system/systemd-cryptsetup@"+instance+".service.d/luksmith.conf", dropIn)
	}
	agent := u.agent(t, "+"+passphrase, "+"+passphrase)
	vm.SwitchRoot(t)
	if state := vm.AwaitUnit(t, "cryptsetup.target", 2*time.Minute); state != "active" {
		t.Errorf("cryptsetup.target is %s\n%s", state, vm.InRoot(t, "journalctl", "-b", "--no-pager", "-n", "60").Stdout)
	}
	for name, want := range map[string]string{"file": "key file /etc/keys/k", "ask me": "passphrase or recovery key from password agent", "shared": "passphrase or recovery key from password agent"} {
		if got := u.report(t, name); got.Result != "attached" || got.Opened.By != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	asked := agent.Wait(t).Stdout
	for _, number := range []int{1, 2} {
		if n := strings.Count(asked, `Id=cryptsetup:/dev/disk/by-uuid/`+uuidNumber(number)+"\n"); n != 1 {
			t.Errorf("asked %d times for volume %d:\n%s", n, number, asked)
		}
	}
	if got := vm.Shell(t, "ls /dev/mapper").Stdout; got != "ask\\x20me\ncontrol\nfile\nshared\n" {
		t.Errorf("nodes: %s", got)
	}
	if r := vm.InRoot(t, "systemctl", "stop", "systemd-cryptsetup@file.service"); r.Status != 0 {
		t.Errorf("stopping: %s", r.Stderr)
	}
	if got := vm.Shell(t, "ls /dev/mapper").Stdout; strings.Contains(got, "file") {
		t.Errorf("still there after the unit was stopped: %s", got)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	return testenv.Run(t, "cat", path)
}
