package e2e

import (
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// firstBootSpec is what an installer leaves for the machine: its own passphrase gives
// way to the TPM and a recovery key.
const firstBootSpec = `version: 1
devices: [/dev/vda]
unlock: [tpm2, {file: /etc/luksmith/bootstrap}]
keyslots:
  - {label: board, type: tpm2, pcrs: 7}
  - {label: paper, type: recovery, to: {file: /root/recovery.key}}
absent: [{opens-with: /etc/luksmith/bootstrap}]
`

// TestFirstBootUnit boots Debian 13's systemd, and OpenRC, with luksmith-ensure switched
// on, as an installer leaves a machine, and then once more.
func TestFirstBootUnit(t *testing.T) {
	if !testenv.EndToEnd() {
		t.Skip("boots systemd twice: make e2e")
	}
	t.Parallel()
	s := makeSample(t)
	for name, boot := range map[string]func(*testing.T, *VM) string{"systemd": firstBootSystemd, "OpenRC": firstBootOpenRC} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bootTwice(t, copyOf(t, s.image), boot)
		})
	}
}

func bootTwice(t *testing.T, disk string, boot func(*testing.T, *VM) string) {
	tree := testenv.Systemd257(t)
	tpm := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	tpm.Stop()
	for _, want := range []string{"made: ", "nothing to do"} {
		vm := Boot(t, Config{Tree: tree.Root, TPM: tpm.StateDir(), MemoryMiB: 1024, Disks: []Disk{{Path: disk}}})
		leaveFirstBoot(t, vm)
		if log := boot(t, vm); !strings.Contains(log, want) {
			t.Fatalf("want %q in:\n%s", want, log)
		}
		list := vm.InRoot(t, "cryptenroll", "/dev/vda").Stdout
		if !strings.Contains(list, " tpm2     board") || !strings.Contains(list, " recovery paper") {
			t.Errorf("%s", list)
		}
		if r := vm.InRoot(t, "cryptenroll", "test", "--unlock-key-file=/etc/luksmith/bootstrap", "/dev/vda"); r.Status != 2 {
			t.Errorf("the passphrase of the installer: exit status %d, %s%s", r.Status, r.Stdout, r.Stderr)
		}
		if r := vm.InRoot(t, "cryptenroll", "test", "--unlock-tpm2-device=auto", "/dev/vda"); r.Status != 0 {
			t.Errorf("the TPM does not open: %s", r.Stderr)
		}
		vm.stop()
	}
}

// leaveFirstBoot is what an installer leaves on the root file system.
func leaveFirstBoot(t *testing.T, vm *VM) {
	t.Helper()
	vm.PrepareRoot(t)
	command := vm.Program(t, "./cryptenroll")
	vm.Shell(t, "cp "+command+" /newroot/usr/bin/cryptenroll")
	for path, text := range map[string]string{"/etc/luksmith/ensure.yaml": firstBootSpec, "/etc/luksmith/bootstrap": passphrase, "/etc/fstab": "",
		"/etc/machine-id": "0123456789abcdef0123456789abcdef\n"} {
		vm.WriteFile(t, "/newroot"+path, []byte(text), 0o600)
	}
}

// firstBootSystemd runs systemd until the unit is through, and returns what it said.
func firstBootSystemd(t *testing.T, vm *VM) string {
	t.Helper()
	vm.Shell(t, "ln -sf test.target /newroot/etc/systemd/system/default.target; mkdir -p /newroot/etc/systemd/system/multi-user.target.wants")
	for path, text := range map[string]string{"luksmith-ensure.service": readFile(t, "../internal/packages/ensure/luksmith-ensure.service"),
		"test.target": strings.Replace(testTarget, "cryptsetup.target", "luksmith-ensure.service", 2)} {
		vm.WriteFile(t, "/newroot/etc/systemd/system/"+path, []byte(text), 0o600)
	}
	vm.SwitchRoot(t)
	vm.AwaitUnit(t, "test.target", 8*time.Minute)
	return vm.InRoot(t, "journalctl", "-b", "--no-pager", "-u", "luksmith-ensure.service").Stdout
}

// firstBootOpenRC has OpenRC run the script until it is through, and returns what it said.
func firstBootOpenRC(t *testing.T, vm *VM) string {
	t.Helper()
	prepareOpenRC(t, vm)
	vm.WriteFile(t, "/newroot/etc/init.d/luksmith-ensure", []byte(readFile(t, "../internal/packages/ensure/luksmith-ensure.openrc")), 0o755)
	return runOpenRC(t, vm, "luksmith-ensure", "default")
}
