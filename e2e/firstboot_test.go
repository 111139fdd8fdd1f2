package e2e

import (
	"os/exec"
	"path/filepath"
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
		if r := vm.InRoot(t, "cryptenroll", "test", "--headless", "--key-file=/etc/luksmith/bootstrap", "/dev/vda"); r.Status == 0 {
			t.Errorf("the passphrase of the installer opens: %s", r.Stdout)
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

// localMount stands for the service that mounts what fstab lists: Debian's OpenRC takes
// it from another package.
const localMount = "#!/sbin/openrc-run\nstart() { :; }\n"

// firstBootOpenRC has openrc-init as PID 1, which starts the runlevels.
func firstBootOpenRC(t *testing.T, vm *VM) string {
	t.Helper()
	vm.Shell(t, "tar -xf "+vm.Push(t, openRC(t))+" -C /newroot; ln -sf /usr/sbin/openrc-init /newroot/usr/sbin/init; mkdir -p /newroot/etc/runlevels/sysinit /newroot/etc/runlevels/boot /newroot/etc/runlevels/default; rm -f /newroot/etc/runlevels/*/*")
	vm.WriteFile(t, "/newroot/etc/rc.conf", []byte("rc_logger=YES\nrc_log_path=/run/rc.log\n"), 0o644)
	vm.WriteFile(t, "/newroot/etc/init.d/localmount", []byte(localMount), 0o755)
	vm.WriteFile(t, "/newroot/etc/init.d/luksmith-ensure", []byte(readFile(t, "../internal/packages/ensure/luksmith-ensure.openrc")), 0o755)
	vm.Shell(t, "chroot /newroot rc-update add luksmith-ensure default")
	vm.SwitchRoot(t)
	done := vm.InRoot(t, "timeout", "300", "sh", "-c", "until [ -e /run/openrc/started/luksmith-ensure ] || [ -e /run/openrc/failed/luksmith-ensure ]; do sleep 0.5; done; rc-service luksmith-ensure status; cat /run/rc.log")
	if !strings.Contains(done.Stdout, "started") {
		t.Errorf("the service did not start: %s%s", done.Stdout, done.Stderr)
	}
	return done.Stdout
}

// openRC is an archive of Debian's OpenRC for a merged /usr.
func openRC(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "apt-get", "dpkg-deb", "tar")
	dir := t.TempDir()
	get := exec.Command("apt-get", "-qq", "download", "openrc", "libeinfo1", "librc1")
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		testenv.NotApplicable(t, "Debian's mirror does not give openrc: "+string(out))
	}
	testenv.Run(t, "sh", "-euc", `cd "$1"; for d in *.deb; do dpkg-deb -x "$d" tree; done
		cd tree; mkdir -p usr; for d in bin sbin lib; do [ ! -d $d ] || { mkdir -p usr/$d; cp -a $d/. usr/$d/; }; done; tar -cf ../openrc.tar usr etc`, "sh", dir)
	return filepath.Join(dir, "openrc.tar")
}
