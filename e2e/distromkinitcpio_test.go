package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/testenv"
)

// mkinitcpioScript installs mkinitcpio's sources and our packages for Arch in a Debian tree, and
// makes an image with the hooks that are its argument. Programs and libraries that Arch has
// at other places, and that no test needs, are errors to mkinitcpio, which goes on.
const mkinitcpioScript = `set -e
export DEBIAN_FRONTEND=noninteractive lib=/usr/lib/initcpio
apt-get -qq update
apt-get -qq -y --no-install-recommends install busybox-static libarchive-tools gawk
mkdir -p $lib /etc/mkinitcpio.conf.d
ln -sf /usr/lib/*-linux-gnu/libgcc_s.so.1 /usr/lib/
for library in kmod acl blkid mount audit pam seccomp tss2-esys tss2-rc tss2-mu tss2-tcti-device; do # which systemd opens
	cp -L /usr/lib/*-linux-gnu/lib$library.so.[0-9] /usr/lib/
done
cd /usr/lib/udev/rules.d # which make /dev/mapper, by the names that they have upstream
ln -sf 55-dm.rules 10-dm.rules
ln -sf 60-persistent-storage-dm.rules 13-dm-disk.rules
cd /tmp/mkinitcpio
for file in functions init init_functions mkinitcpio install/* hooks/*; do
	mkdir -p "$lib/${file%/*}" 2>/dev/null || :
	[ -d "$lib/$file" ] && rmdir "$lib/$file"
	sed -e "s,@VERSION@,0,g;s,@INITCPIO_LIBDIR@,$lib,g;s,@SYSCONFDIR@,/etc,g;s,@INITCPIO_SYSCONFDIR@,/etc/initcpio,g;s,@BINDIR@,/usr/bin:/usr/sbin,g" \
		-e 's,@UDEVD_PATH@,/usr/lib/systemd/systemd-udevd,g;s,@TMPFILES_PATH@,/usr/bin/systemd-tmpfiles,g' "$file" >"$lib/$file"
	chmod 755 "$lib/$file"
done
cp /usr/bin/busybox $lib/busybox
for package in /tmp/mkinitcpio/*.pkg.tar.zst; do tar -C / --zstd --exclude='.[A-Z]*' -xf "$package"; done
cp /etc/crypttab /etc/crypttab.initramfs
printf '%s\n' 'MODULES=(virtio_pci virtio_blk ext4)' 'BINARIES=()' 'FILES=()' 'COMPRESSION=zstd' "HOOKS=($1)" >/etc/mkinitcpio.conf
$lib/mkinitcpio -k "$2" -g /tmp/initrd || test -s /tmp/initrd
`

// mkinitcpioCells are those of cells that mean something without a crypttab of Debian's.
var mkinitcpioCells = []string{"off", "TPM", "TPM policy moved", "no TPM", "program hangs", "program crashes", "program deleted"}

// TestMkinitcpio boots images that Arch's tool makes, which is no package of Debian:
// LUKSMITH_E2E_MKINITCPIO names a folder with its sources.
func TestMkinitcpio(t *testing.T) {
	sources := os.Getenv("LUKSMITH_E2E_MKINITCPIO")
	if sources == "" {
		testenv.NotApplicable(t, "LUKSMITH_E2E_MKINITCPIO names no folder with mkinitcpio's sources")
	}
	d := newDistro(t, "trixie")
	folder := filepath.Join(d.tree, "tmp/mkinitcpio")
	testenv.Run(t, "cp", "-a", sources, folder)
	packages, _ := filepath.Glob("../build/packages/*.pkg.tar.zst")
	testenv.Run(t, "cp", append(packages, folder)...)
	for tool, hooks := range map[string]string{"mkinitcpio": "base udev modconf block encrypt filesystems", "mkinitcpio-systemd": "systemd modconf block sd-encrypt filesystems"} {
		t.Run(tool, func(t *testing.T) {
			d.over = true
			t.Logf("%s", d.run(t, "sh", "-c", mkinitcpioScript, "sh", hooks, d.release))
			d.over = false
			image := filepath.Join(t.TempDir(), "initrd")
			testenv.Run(t, "mv", filepath.Join(d.tree, "tmp/initrd"), image)
			if tool == "mkinitcpio-systemd" { // the kernel command line of this machine names no volume
				testenv.Run(t, "../build/luksmith-initrd", "--volume="+d.sealed, image)
			}
			for _, c := range cells {
				if !slices.Contains(mkinitcpioCells, c.name) {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					once(t)
					c.run(t, d, tool, image)
				})
			}
		})
	}
}
