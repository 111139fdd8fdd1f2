package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// layoutCells are about what lies in the volume, or beside it.
var layoutCells = []cell{
	{name: "LVM, TPM", tpm: true, disk: (*distro).lvm, root: "vg-root", by: "tpm2 token"},
	{name: "LVM, no TPM", disk: (*distro).lvm, root: "vg-root"},
	{name: "LUKS on LVM, TPM", tpm: true, disk: (*distro).onLVM, by: "tpm2 token"},
	{name: "LUKS on LVM, no TPM", disk: (*distro).onLVM},
	{name: "btrfs, TPM", tpm: true, disk: (*distro).btrfs, by: "tpm2 token"},
	{name: "btrfs, no TPM", disk: (*distro).btrfs},
}

// makeLayouts makes the disks of layoutCells, once.
func (d *distro) makeLayouts(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(d.lvm()); err == nil {
		return
	}
	d.makeBtrfs(t)
	image := d.initrd(t, "initramfs-tools")
	d.makeLVM(t, image, d.onLVM(), d.sealed)
	d.makeLVM(t, image, d.lvm(), d.plain())
	encryptDistro(t, d.lvm(), distroUUID)
	d.enroll(t, d.lvm(), SeaBIOSPCR7)
}

func (d *distro) onLVM() string { return filepath.Join(d.dir, "on-lvm") }
func (d *distro) lvm() string   { return filepath.Join(d.dir, "lvm") }
func (d *distro) btrfs() string { return filepath.Join(d.dir, "btrfs") }

func (d *distro) makeBtrfs(t *testing.T) {
	t.Helper()
	d.run(t, "truncate", "-s", "600M", "/tmp/btrfs")
	d.run(t, "mkfs.btrfs", "-q", "--rootdir", "/"+distroContent, "/tmp/btrfs")
	testenv.Run(t, "mv", filepath.Join(d.tree, "tmp/btrfs"), d.btrfs())
	encryptDistro(t, d.btrfs(), distroUUID)
	d.enroll(t, d.btrfs(), SeaBIOSPCR7)
}

// makeLVM has the shell of initramfs-tools' image make a volume group, since the host has
// no device-mapper. Its only volume has the content.
func (d *distro) makeLVM(t *testing.T, image, disk, content string) {
	t.Helper()
	testenv.Run(t, "truncate", "-s", strconv.FormatInt(size(t, content)+8<<20, 10), disk)
	m := bootMachine(t, machineConfig{kernel: d.kernel, initrd: image, disks: []string{content, disk}, written: true, args: "break=premount luksmith=no"})
	m.await(`\(initramfs\)`, 2*time.Minute)
	m.enter(strings.Join([]string{
		"modprobe dm_mod", "lvm pvcreate -y /dev/vdb", "lvm vgcreate vg /dev/vdb", "lvm lvcreate -y -Wn -Zn -l 100%FREE -n root vg", "lvm vgchange -ay",
		"dd if=/dev/vda of=/dev/vg/root bs=1M", "sync", `echo MADE-IT''`}, " && ") + "; poweroff -f")
	m.await(`MADE-IT\n`, 4*time.Minute)
	m.awaitEnd(time.Minute)
}

// makeHomes makes the disks of homeCells, once.
func (d *distro) makeHomes(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(d.homeImage()); err == nil {
		return
	}
	for name, pcr7 := range map[string]string{"home": SeaBIOSPCR7, "home-moved": pcrMoved} {
		image := filepath.Join(d.dir, name)
		testenv.Run(t, "truncate", "-s", "32M", image)
		testenv.Run(t, "mke2fs", "-q", "-t", "ext4", "-F", image)
		encryptDistro(t, image, homeUUID)
		d.enroll(t, image, pcr7)
	}
}

const (
	homeUUID = "5afe0000-0000-4000-8000-0000000000e0"
	homeLine = "home UUID=" + homeUUID + " none luks"
	homeUp   = `E2E-MOUNTED /home=home(.|\n)*E2E-BOOTED`
)

func (d *distro) homeImage() string { return filepath.Join(d.dir, "home") }

func homeDisk(d *distro) []string      { return []string{d.homeImage()} }
func homeMovedDisk(d *distro) []string { return []string{filepath.Join(d.dir, "home-moved")} }

// homeCells are about a second volume, for /home, which systemd attaches when the real
// root is there. The root is opened by the TPM, or by the passphrase without luksmith. Where somebody has to be asked the TPM's
// policy does not fit: systemd in the real root would use the token by itself.
var homeCells = []cell{
	{name: "off", more: homeMovedDisk, change: inRoot(homeLine, ""), args: "luksmith=no"},
	{name: "TPM", more: homeDisk, change: inRoot(homeLine, ""), by: `tpm2 token"(.|\n)*"by": "tpm2 token`},
	{name: "key file", more: homeMovedDisk, change: inRoot(strings.Replace(homeLine, "none", "/etc/home.key", 1), "(umask 077; printf %s '"+keyFile+"' >etc/home.key)"),
		by: `(tpm2 token|key file[^"]*)"(.|\n)*"by": "(tpm2 token|key file)`},
	{name: "TPM policy moved", more: homeMovedDisk, change: inRoot(homeLine, "")},
	{name: "not switched on", more: homeMovedDisk, change: inRoot(homeLine, "echo root >etc/luksmith/boot")},
	{name: "crypttab that others can write", more: homeDisk, change: inRoot(homeLine, "chmod 664 etc/crypttab"), by: `tpm2 token"(.|\n)*"by": "tpm2 token`},
	{name: "two wrong answers", more: homeMovedDisk, change: inRoot(homeLine, ""), wrong: 2},
	{name: "two wrong answers, off", more: homeMovedDisk, change: inRoot(homeLine, ""), wrong: 2, args: "luksmith=no"},
	{name: "program hangs", more: homeMovedDisk, change: inRoot(homeLine, rootHelper("exec sleep 100000"))},
	{name: "program crashes", more: homeMovedDisk, change: inRoot(homeLine, rootHelper("kill -SEGV $$"))},
	{name: "generator hangs", more: homeMovedDisk, change: inRoot(homeLine, "printf '#!/bin/sh\\nexec sleep 100000\\n' >usr/lib/luksmith/cryptsetup-unit")},
	{name: "program deleted", more: homeMovedDisk, change: inRoot(homeLine, "rm usr/lib/luksmith/cryptsetup-unit")},
	{name: "package removed", more: homeMovedDisk, change: inRoot(homeLine, "rm -r usr/lib/luksmith usr/lib/systemd/system-generators/luksmith-generator")},
	{name: "disk absent, nofail", change: inRoot(homeLine+",nofail,x-systemd.device-timeout=5s", "sed -i 's,/home ext4 defaults,&\\,nofail\\,x-systemd.device-timeout=5s,' etc/fstab"), by: "tpm2 token", ends: "E2E-BOOTED"},
}

// inRoot has the image give the real root a line for crypttab and one for fstab, and run
// a shell script there, before systemd starts.
func inRoot(line, script string) func(*archive) {
	return func(a *archive) {
		a.file("scripts/local-bottom/ORDER", 0o644, []byte("/scripts/local-bottom/e2e \"$@\"\n"))
		a.file("scripts/local-bottom/e2e", 0o755, []byte(`#!/bin/sh
mount -o remount,rw "$rootmnt" && cd "$rootmnt" || exit 0
echo "`+line+`" >>etc/crypttab
echo "/dev/mapper/home /home ext4 defaults 0 2" >>etc/fstab
`+script+"\n"))
	}
}

// rootHelper has a shell script stand for the boot helper of the real root, but not for
// its generator.
func rootHelper(text string) string {
	return "cd usr/lib/luksmith && rm luksmith-generator && mv cryptsetup-unit luksmith-generator && printf '#!/bin/sh\\n" + text + "\\n' >cryptsetup-unit && chmod 755 cryptsetup-unit"
}

// testHomes boots homeCells to the end, with systemd as PID 1.
func (d *distro) testHomes(t *testing.T, image string) {
	d.makeHomes(t)
	keyed, plug := d.keyed(t, filepath.Join(d.dir, "home-moved")), d.virtualKey(t)
	list := append(slices.Clone(homeCells), cell{name: "FIDO2 key", more: func(*distro) []string { return []string{keyed} }, by: `(tpm2|fido2) token"(.|\n)*"by": "(tpm2|fido2) token`,
		change: func(a *archive) {
			plug("")(a)
			inRoot(homeLine, "")(a)
		}})
	var limit questionLimit
	for _, c := range list {
		t.Run(c.name, func(t *testing.T) {
			if c.name != "off" {
				once(t)
			}
			c.whole, c.tpm, c.disk, c.ends = true, true, sealedDisk, cmp.Or(c.ends, homeUp)
			if strings.Contains(c.args, "luksmith=no") {
				limit.check(t, c, d.bootHomeAlone(t, c, image))
				return
			}
			limit.check(t, c, c.run(t, d, "systemd", image))
		})
	}
}

// bootHomeAlone boots without luksmith: stock asks for both volumes.
func (d *distro) bootHomeAlone(t *testing.T, c cell, image string) (asked time.Duration) {
	t.Helper()
	m := bootMachine(t, c.machine(d, "systemd", overlay(t, image, c.change)))
	m.await(stockQuestion["initramfs-tools"], 5*time.Minute)
	m.enter(passphrase)
	return c.answer(m, "systemd")
}

const (
	swapUUID = "5afe0000-0000-4000-8000-0000000000f0"
	swapLine = "swap UUID=" + swapUUID + " none luks,initramfs,x-initrd.attach\n"
)

// testResume has a machine sleep on an encrypted swap and wake up from it.
func (d *distro) testResume(t *testing.T, tool, image string) {
	once(t)
	image = overlay(t, image, func(a *archive) { distroTable(a, 0o600, distroLine+swapLine) })
	swap := filepath.Join(t.TempDir(), "swap")
	testenv.Run(t, "truncate", "-s", "600M", swap)
	testenv.Run(t, "mkswap", "-q", swap)
	encryptDistro(t, swap, swapUUID)
	d.enroll(t, swap, SeaBIOSPCR7)
	root := filepath.Join(t.TempDir(), "root")
	testenv.Run(t, "cp", "--sparse=always", d.sealed, root)
	c := cell{tpm: true, disk: func(*distro) string { return root }, more: func(*distro) []string { return []string{swap} }, args: "resume=/dev/mapper/swap e2e.sleep"}
	if tool == "dracut" {
		c.args += " rd.luks.uuid=" + swapUUID
	}
	config := c.machine(d, tool, image)
	config.written = true
	m := bootMachine(t, config)
	m.await(`E2E-SLEEPS`, 3*time.Minute)
	m.awaitEnd(2 * time.Minute)
	m = bootMachine(t, config)
	_, up := m.await(`E2E-AWAKE swap`, 4*time.Minute)
	t.Logf("awake after %.1f s", up.Seconds())
}
