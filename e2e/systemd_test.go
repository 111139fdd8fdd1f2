package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// testTarget has what encrypted volumes need and nothing else, for the sake of time.
const testTarget = `[Unit]
DefaultDependencies=no
Wants=systemd-journald.service systemd-udevd.service systemd-udev-trigger.service cryptsetup.target
After=cryptsetup.target
`

// dropIn is what docs/initrd.md has for systems without package: the program may be
// missing, and then systemd's own line asks.
func dropIn(program, stock string) string {
	return "[Service]\nExecStart=\nExecStart=-" + program + " attach -- %I\nExecStart=" + stock + "\n"
}

// stockLine is the line that systemd's generator makes.
func stockLine(name, uuid, key, options string) string {
	return fmt.Sprintf("/usr/bin/systemd-cryptsetup attach '%s' '/dev/disk/by-uuid/%s' '%s' '%s'", name, uuid, key, options)
}

// TestSystemdCallsUsThroughTheDropIn boots Debian 13's systemd. Its generator makes
// the units of crypttab, the drop-in has them call cryptsetup-unit.
func TestSystemdCallsUsThroughTheDropIn(t *testing.T) {
	t.Parallel()
	s := makeSample(t)
	tree := testenv.Systemd257(t)
	sealed, tpm := otherUUID(t, copyOf(t, s.image), 3), testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	enrollTPM(t, tpm, sealed, nil, "--tpm2-pcrs=7")
	tpm.Stop()
	vm := Boot(t, Config{Tree: tree.Root, TPM: tpm.StateDir(), MemoryMiB: 1024, Modules: []string{"dm-crypt", "xts", "aesni-intel"},
		Disks: []Disk{{Path: copyOf(t, s.image)}, {Path: otherUUID(t, copyOf(t, s.image), 1)}, {Path: otherUUID(t, copyOf(t, s.image), 2)}, {Path: sealed}, {Path: otherUUID(t, copyOf(t, s.image), 4)}}})
	u := newUnit(t, vm)
	vm.PrepareRoot(t)
	write := func(path, text string) { vm.WriteFile(t, "/newroot"+path, []byte(text), 0o600) }
	vm.Shell(t, "cp "+u.path+" /newroot/usr/local/bin/cryptsetup-unit; ln -sf test.target /newroot/etc/systemd/system/default.target")
	write("/etc/systemd/system/test.target", testTarget)
	write("/etc/keys/k", keyFile)
	write("/etc/fstab", "")
	write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	const patient = "x-systemd.device-timeout=10min" // udevd on a busy machine
	write("/etc/crypttab", fmt.Sprintf("file UUID=%s /etc/keys/k luks,password-cache=no,%[5]s\nask\\x20me UUID=%[2]s none password-cache=no,%[5]s\nshared UUID=%[3]s none %[5]s\nsealed UUID=%[4]s none tpm2-device=auto,headless,password-cache=no,%[5]s\nback UUID=%[6]s /etc/keys/k luks,%[5]s\n",
		s.uuid, uuidNumber(1), uuidNumber(2), uuidNumber(3), patient, uuidNumber(4)))
	for instance, line := range map[string]string{ // as systemd-escape spells them
		"file": stockLine("file", s.uuid, "/etc/keys/k", "luks"), `ask\x5cx20me`: stockLine("ask me", uuidNumber(1), "none", "password-cache=no"),
		"shared": stockLine("shared", uuidNumber(2), "none", ""), "sealed": stockLine("sealed", uuidNumber(3), "none", "tpm2-device=auto,headless"),
	} {
		write("/etc/systemd/system/systemd-cryptsetup@"+instance+".service.d/luksmith.conf", dropIn("/usr/local/bin/cryptsetup-unit", line))
	}
	write("/etc/systemd/system/systemd-cryptsetup@back.service.d/luksmith.conf", dropIn("/usr/local/bin/removed", stockLine("back", uuidNumber(4), "/etc/keys/k", "luks")))
	agent := u.agent(t, uuidNumber(1)+":+"+passphrase, uuidNumber(2)+":+"+passphrase)
	vm.SwitchRoot(t)
	if state := vm.AwaitUnit(t, "cryptsetup.target", 8*time.Minute); state != "active" {
		t.Fatalf("cryptsetup.target is %s\n%s\nasked: %s", state, vm.InRoot(t, "sh", "-c", "journalctl -b --no-pager -n 60; ps ax; grep . /run/systemd/ask-password/*").Stdout, agent.Output())
	}
	for name, want := range map[string]string{"file": "key file /etc/keys/k", "ask me": fromAgent, "shared": fromAgent, "sealed": "tpm2 token"} {
		if got := u.report(t, name); got.Result != "attached" || got.Opened.By != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	asked := agent.Wait(t).Stdout
	for number, want := range map[int]int{1: 1, 2: 1, 3: 0} {
		if n := strings.Count(asked, `Id=cryptsetup:/dev/disk/by-uuid/`+uuidNumber(number)+"\n"); n != want {
			t.Errorf("asked %d times for volume %d, want %d:\n%s", n, number, want, asked)
		}
	}
	if got := vm.Shell(t, "ls /dev/mapper").Stdout; got != "ask\\x20me\nback\ncontrol\nfile\nsealed\nshared\n" {
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
