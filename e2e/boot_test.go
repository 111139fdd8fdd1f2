package e2e

import (
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestRootVolumeAtBoot boots with an encrypted root volume that only the kernel
// command line names, attaches it from the initrd and goes on from it.
func TestRootVolumeAtBoot(t *testing.T) {
	t.Run("passphrase typed at the console", func(t *testing.T) {
		t.Parallel()
		s := makeSample(t)
		u := bootRoot(t, Config{Disks: []Disk{{Path: copyOf(t, s.image)}}, KernelArgs: []string{"rd.luks.name=" + s.uuid + "=root"}})
		p := u.start(t, "attach-all", "--initrd")
		u.AwaitConsole(t, "Please enter passphrase or recovery key for disk root:", slow)
		u.TypeOnConsole(t, passphrase+"\n")
		u.becomesRoot(t, p, fromConsole)
	})
	t.Run("TPM", func(t *testing.T) {
		t.Parallel()
		s := makeSample(t)
		image, tpm := copyOf(t, s.image), testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
		enrollTPM(t, tpm, image, nil, "--tpm2-pcrs=7")
		tpm.Stop()
		u := bootRoot(t, Config{TPM: tpm.StateDir(), Disks: []Disk{{Path: image}},
			KernelArgs: []string{"rd.luks.name=" + s.uuid + "=root", "rd.luks.options=" + s.uuid + "=tpm2-device=auto,headless"}})
		u.becomesRoot(t, u.start(t, "attach-all", "--initrd"), "tpm2 token")
	})
}

// bootRoot boots an initrd that has cryptsetup-unit.
func bootRoot(t *testing.T, c Config) *unit {
	t.Helper()
	const path = "/usr/bin/cryptsetup-unit"
	c.Files = map[string]string{path: build(t, "./cryptsetup-unit")}
	return &unit{Boot(t, c), path}
}

// becomesRoot waits for attach-all and lets PID 1 go on in the root volume.
func (u *unit) becomesRoot(t *testing.T, attach *Process, by string) {
	t.Helper()
	if r := attach.Wait(t); r.Status != 0 {
		t.Fatalf("attach-all: exit status %d\n%s", r.Status, r.Stderr)
	}
	if got := u.report(t, "root").Opened.By; got != by {
		t.Errorf("opened by %s", got)
	}
	u.Shell(t, "mkdir /newroot; mount -t ext4 -o ro /dev/mapper/root /newroot")
	u.SwitchRoot(t)
	got := u.Shell(t, "i=0; while ! [ -e /run/booted ]; do i=$((i+1)); [ $i -lt 400 ]; sleep 0.05; done; cat /run/booted; grep ' / ' /proc/1/mounts").Stdout
	if !strings.HasPrefix(got, inside+"/dev/mapper/root / ext4") {
		t.Errorf("the system in the volume: %s", got)
	}
}
