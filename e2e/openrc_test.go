package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestOpenRCAttachesVolumes boots OpenRC with the service of the packages switched on:
// what crypttab names is there before file systems are mounted, and is taken away when
// the service ends.
func TestOpenRCAttachesVolumes(t *testing.T) {
	if !testenv.EndToEnd() {
		t.Skip("boots OpenRC: make e2e")
	}
	t.Parallel()
	s := makeSample(t)
	vm := Boot(t, Config{Tree: testenv.Systemd257(t).Root, MemoryMiB: 1024, Disks: []Disk{{Path: copyOf(t, s.image)}}})
	vm.PrepareRoot(t)
	vm.Shell(t, "mkdir -p /newroot/usr/lib/luksmith /newroot/run; cp "+vm.Program(t, "./cryptsetup-unit")+" /newroot/usr/lib/luksmith/cryptsetup-unit")
	for path, text := range map[string]string{"crypttab": "data UUID=" + s.uuid + " /etc/data.key luks\nlate UUID=00000000-0000-4000-8000-0000000000aa none luks,noauto\n", "data.key": keyFile, "fstab": ""} {
		vm.WriteFile(t, "/newroot/etc/"+path, []byte(text), 0o600)
	}
	prepareOpenRC(t, vm)
	vm.WriteFile(t, "/newroot/etc/init.d/luksmith", []byte(readFile(t, "../cryptsetup-unit/initrd/openrc/luksmith")), 0o755)
	vm.Shell(t, "modprobe -a dm_crypt xts aesni-intel ext4 crc32c_generic") // the kernel does not find modprobe in this root
	log := runOpenRC(t, vm, "luksmith", "boot")
	if list := vm.InRoot(t, "dmsetup", "ls").Stdout; !strings.Contains(list, "data") || strings.Contains(list, "late") {
		t.Errorf("attached: %s\n%s", list, log)
	}
	if at, mount := strings.Index(log, "Attaching the volumes of /etc/crypttab"), strings.Index(log, "mounts local file systems"); at < 0 || mount < at {
		t.Errorf("the order in:\n%s", log)
	}
	if r := vm.InRoot(t, "sh", "-c", "mount -t ext4 -o ro /dev/mapper/data /mnt && cat /mnt/file && umount /mnt"); r.Stdout != inside {
		t.Errorf("it contains %q\n%s%s", r.Stdout, r.Stderr, log)
	}
	vm.InRoot(t, "rc-service", "luksmith", "stop")
	if list := vm.InRoot(t, "dmsetup", "ls").Stdout; strings.Contains(list, "data") {
		t.Errorf("left after the service ended: %s", list)
	}
}

// openRCService stands for services of other packages.
const openRCService = "#!/sbin/openrc-run\n"

// prepareOpenRC has openrc-init as PID 1 of the real root, with nothing in its runlevels.
func prepareOpenRC(t *testing.T, vm *VM) {
	t.Helper()
	vm.Shell(t, "tar -xf "+vm.Push(t, openRC(t))+" -C /newroot; ln -sf /usr/sbin/openrc-init /newroot/usr/sbin/init; mkdir -p /newroot/etc/runlevels/sysinit /newroot/etc/runlevels/boot /newroot/etc/runlevels/default; rm -f /newroot/etc/runlevels/*/*")
	for path, text := range map[string]string{"rc.conf": "rc_logger=YES\nrc_log_path=/run/rc.log\n", "init.d/dev": openRCService + "start() { :; }\n",
		"init.d/localmount": openRCService + "start() { einfo 'mounts local file systems'; }\n"} {
		vm.WriteFile(t, "/newroot/etc/"+path, []byte(text), 0o755)
	}
}

// runOpenRC switches a service on, boots until it is through, and returns what was said.
func runOpenRC(t *testing.T, vm *VM, service, runlevel string) string {
	t.Helper()
	vm.Shell(t, "chroot /newroot rc-update add localmount boot && chroot /newroot rc-update add "+service+" "+runlevel)
	vm.SwitchRoot(t)
	done := vm.InRoot(t, "timeout", "300", "sh", "-c", "until [ -e /run/openrc/started/$0 ] || [ -e /run/openrc/failed/$0 ]; do sleep 0.5; done; until [ -e /run/openrc/started/localmount ]; do sleep 0.5; done; rc-service $0 status; cat /run/rc.log", service)
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
