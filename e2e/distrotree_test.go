package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// A distro is a Debian on an encrypted root file system, with the packages that
// `make packages` built, for booting as a machine does: its own kernel, an initrd made
// by its own tool, a serial console.
//
// Nothing is mounted outside of private namespaces, and the host needs no device-mapper.
type distro struct {
	suite   string
	deb     string // the package
	tree    string // the installed system
	kernel  string
	release string // of the kernel
	over    bool   // commands run in a copy of the tree that lies on /dev/mapper/root
	dir     string // of the images
	packed  string // the volume's image with passphrase, key file and no token
	sealed  string // a copy with a keyslot for the TPM
	moved   string // a copy with one for another state of the TPM
	tpm     string // the state of the TPM
}

// distroUUID is the volume's, so that crypttab can be written before the volume.
const distroUUID = "5afe0000-0000-4000-8000-00000000c0de"

// distroLine is crypttab's line for the root volume, and distroKeyPath where overlays
// have the key file.
const (
	distroLine    = "root UUID=" + distroUUID + " none luks,initramfs,x-initrd.attach\n"
	distroKeyPath = "/etc/distro.key"
)

// distroPackages is what a suite has besides the common list.
var distroPackages = map[string]string{
	"bookworm": "libtss2-esys-3.0.2-0,libtss2-rc0,libtss2-mu0,libtss2-tcti-device0",
	"trixie":   "systemd-cryptsetup,libtss2-esys-3.0.2-0t64,libtss2-rc0t64,libtss2-mu-4.0.1-0t64,libtss2-tcti-device0t64",
}

const distroCommon = "systemd-sysv,udev,dbus,kmod,zstd,cryptsetup-bin,dmsetup,e2fsprogs,lvm2,btrfs-progs,initramfs-tools,busybox,cryptsetup-initramfs,linux-image-cloud-amd64,cpio,xz-utils,dracut-core,libfido2-1"

// newDistro installs a suite. The base system stays in the user's cache folder, since
// it takes minutes.
func newDistro(t *testing.T, suite string) *distro {
	t.Helper()
	testenv.NeedEndToEnd(t)
	testenv.NeedRoot(t)
	testenv.Need(t, qemuProgram, "debootstrap", "mke2fs", "cryptsetup", "cpio", "unshare", "dpkg-deb")
	debs, _ := filepath.Glob("../build/packages/luksmith_*.deb")
	fido2, _ := filepath.Glob("../build/packages/luksmith-fido2_*.deb")
	if len(debs) != 1 || len(fido2) != 1 {
		testenv.Missing(t, "the package below build/packages", "make packages")
	}
	d := &distro{suite: suite, deb: debs[0], tree: filepath.Join(t.TempDir(), "tree")}
	testenv.Run(t, "cp", "-a", distroBase(t, suite), d.tree)
	d.configure(t)
	d.install(t, d.deb)
	d.install(t, fido2[0])
	kernels, _ := filepath.Glob(filepath.Join(d.tree, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		t.Fatalf("kernels: %v", kernels)
	}
	d.kernel, d.release = kernels[0], strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	d.pack(t)
	return d
}

func distroBase(t *testing.T, suite string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		testenv.NotApplicable(t, "no cache folder: "+err.Error())
	}
	base := filepath.Join(cache, "luksmith", "distro", suite+"-base-2")
	if _, err := os.Stat(base); err == nil {
		return base
	}
	_ = os.RemoveAll(base + ".new")
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("debootstrap", "--variant=minbase", "--include="+distroCommon+","+distroPackages[suite], suite, base+".new")
	if out, err := cmd.CombinedOutput(); err != nil {
		testenv.NotApplicable(t, fmt.Sprintf("Debian's mirror does not give %s: %v\n%s", suite, err, out[max(0, len(out)-2000):]))
	}
	if err := os.Rename(base+".new", base); err != nil {
		t.Fatal(err)
	}
	return base
}

// distroInit is the end of a boot that is only about the initrd, a minute before
// systemd's under emulation.
const distroInit = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin
[ -e /proc/mounts ] || mount -t proc proc /proc
grep -h -o '"by": "[^"]*"' /run/luksmith/*.json
sed -n 's,^/dev/mapper/\([^ ]*\) \(/[^ ]*\) .*,E2E-MOUNTED \2=\1,p' /proc/mounts
echo "E2E-BOOTED root=$(sed -n 's, / .*,,p' /proc/mounts | tail -n 1) up=$(cut -d' ' -f1 /proc/uptime)"
if grep -q e2e.sleep /proc/cmdline; then
	swapon /dev/mapper/swap && echo shutdown >/sys/power/disk && echo E2E-SLEEPS && echo disk >/sys/power/state
	echo "E2E-AWAKE $(dmsetup ls --target crypt | cut -f1 | grep swap)"
fi
exec sleep 1000
`

// distroTarget does the same with systemd as PID 1.
const distroTarget = `[Unit]
Wants=systemd-udevd.service systemd-udev-trigger.service systemd-ask-password-console.path local-fs.target swap.target e2e.service
After=local-fs.target swap.target
AllowIsolate=yes
`

const distroService = `[Unit]
DefaultDependencies=no
After=local-fs.target swap.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/e2e-init
`

// configure makes the tree a machine of its own. Tools that make initrds look at the
// running system, which here is the host: so what they would find out is written down.
func (d *distro) configure(t *testing.T) {
	t.Helper()
	for path, text := range map[string]string{
		"etc/hostname": "e2e\n", "etc/hosts": "127.0.0.1 localhost e2e\n",
		"etc/machine-id":                    "0123456789abcdef0123456789abcdef\n",
		"etc/fstab":                         "/dev/mapper/root / auto defaults 0 1\n",
		"etc/crypttab":                      distroLine,
		"e2e-init":                          distroInit,
		"etc/systemd/system/e2e.target":     distroTarget,
		"etc/systemd/system/e2e.service":    distroService,
		"etc/dracut.conf.d/00-e2e.conf":     "hostonly=no\nhostonly_cmdline=no\ncompress=zstd\ninstall_items+=\" /etc/crypttab \"\nadd_drivers+=\" uhid \"\n",
		"etc/initramfs-tools/modules":       "uhid\n",
		"etc/luksmith/boot":                 "all\n",
		"etc/initramfs-tools/conf.d/resume": "RESUME=none\n",
	} {
		d.write(t, path, text)
	}
	d.run(t, "systemctl", "set-default", "e2e.target")
	for _, unit := range []string{"getty@tty1.service", "serial-getty@ttyS0.service", "systemd-networkd.service", "systemd-timesyncd.service"} {
		_ = os.Symlink("/dev/null", filepath.Join(d.tree, "etc/systemd/system", unit))
	}
}

func (d *distro) write(t *testing.T, path, text string) {
	t.Helper()
	full := filepath.Join(d.tree, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(full, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the tree, in a mount namespace of its own.
func (d *distro) run(t *testing.T, args ...string) string {
	t.Helper()
	const script = `mount -t proc proc "$0/proc" && mount -t sysfs sys "$0/sys" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"`
	// A tree that lies on /dev/mapper/root, by the look of it: what is below /tmp stays.
	const over = `cd "$1" && mkdir up work root && mount -t overlay /dev/mapper/root -o lowerdir="$0",upperdir=up,workdir=work root &&
		mount --bind "$0/tmp" root/tmp && tree=$1/root && shift && set -- "$tree" "$@" && exec sh -c '` + script + `' "$@"`
	shell := []string{"-m", "sh", "-c", script, d.tree}
	if d.over {
		shell = []string{"-m", "sh", "-c", over, d.tree, t.TempDir()}
	}
	cmd := exec.Command("unshare", append(shell, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s", strings.Join(args, " "), d.suite, err, out)
	}
	return string(out)
}

// install has dpkg install a package.
func (d *distro) install(t *testing.T, deb string) {
	t.Helper()
	testenv.Run(t, "cp", deb, filepath.Join(d.tree, "tmp/luksmith.deb"))
	d.run(t, "dpkg", "-i", "/tmp/luksmith.deb")
	d.run(t, "test", "-f", "/usr/lib/luksmith/luksmith-generator", "-a", "-f", "/usr/lib/luksmith/key")
}

// initrd has a tool of the tree make an image, and returns a copy of it.
func (d *distro) initrd(t *testing.T, tool string) string {
	t.Helper()
	args := map[string][]string{
		"initramfs-tools": {"mkinitramfs", "-o", "/tmp/initrd", d.release},
		"dracut":          {"dracut", "--force", "--quiet", "--kver", d.release, "--omit", "systemd systemd-initrd systemd-cryptsetup dracut-systemd", "--add", "crypt", "/tmp/initrd"},
		"dracut-systemd":  {"dracut", "--force", "--quiet", "--kver", d.release, "--add", "crypt systemd", "/tmp/initrd"},
	}[tool]
	t.Logf("%s: %s", tool, d.run(t, args...))
	image := filepath.Join(t.TempDir(), "initrd")
	testenv.Run(t, "mv", filepath.Join(d.tree, "tmp/initrd"), image)
	return image
}
