package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// discoverCells boot images without crypttab. The disk has an old version of the root
// file system, which would not boot, and the newest.
var discoverCells = []cell{
	{name: "TPM", tpm: true, disk: func(d *distro) string { return d.gptDisk("sealed") }, by: "tpm2 token"},
	{name: "no TPM", disk: func(d *distro) string { return d.gptDisk("sealed") }},
	{name: "three wrong answers", disk: func(d *distro) string { return d.gptDisk("sealed") }, wrong: 3},
}

// ourQuestion is that of cryptsetup-unit, which asks where nobody else does.
const ourQuestion = `for disk [^\n]*\(press TAB for no echo\)`

// gptDisk is a disk with a partition table.
func (d *distro) gptDisk(name string) string { return filepath.Join(d.dir, "gpt-"+name) }

const (
	espType  = "type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid="
	rootType = "type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=" // x86-64
	espUUID  = "5afe0000-0000-4000-8000-0000000000b0"
)

// gptPart is a partition: what it holds, and its line for sfdisk.
type gptPart struct{ image, line string }

// makeGPT makes a disk with a partition table.
func makeGPT(t *testing.T, disk string, parts ...gptPart) {
	t.Helper()
	table, start := "label: gpt\n", int64(1)
	var places []int64
	for _, p := range parts {
		info, err := os.Stat(p.image)
		if err != nil {
			t.Fatal(err)
		}
		size := (info.Size() + 1<<20 - 1) >> 20
		table += fmt.Sprintf("start=%d, size=%d, %s\n", start<<11, size<<11, p.line)
		places = append(places, start)
		start += size
	}
	testenv.Run(t, "truncate", "-s", strconv.FormatInt(start+1, 10)+"M", disk)
	testenv.Run(t, "sh", "-c", `printf %s "$1" | sfdisk -q "$0"`, disk, table)
	for i, p := range parts {
		testenv.Run(t, "dd", "status=none", "if="+p.image, "of="+disk, "bs=1M", "seek="+strconv.FormatInt(places[i], 10), "conv=notrunc,sparse")
	}
}

// fat makes a boot partition with files of this machine.
func (d *distro) fat(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	image := filepath.Join(d.dir, name)
	testenv.Run(t, "mkfs.vfat", "-F", "32", "-C", image, strconv.Itoa(128<<10))
	fillFAT(t, image, files)
	return image
}

// testDiscover makes an image of a tool that no crypttab is in, and boots it.
func (d *distro) testDiscover(t *testing.T, tool string) {
	d.write(t, "etc/crypttab", "")
	image := d.rootInitrd(t, tool)
	d.write(t, "etc/crypttab", distroLine)
	d.makeHomes(t)
	if _, err := os.Stat(d.gptDisk("sealed")); err != nil {
		makeGPT(t, d.gptDisk("sealed"), gptPart{d.sealed, rootType + "os_10"}, gptPart{d.homeImage(), rootType + "os_9"})
		makeGPT(t, d.gptDisk("other"), gptPart{d.fat(t, "empty", nil), espType + "5afe0000-0000-4000-8000-0000000000b1"}, gptPart{d.homeImage(), rootType + "os_11"})
	}
	for _, c := range discoverCells {
		t.Run(c.name, func(t *testing.T) {
			once(t)
			c.run(t, d, "discover", image)
		})
	}
	t.Run("boot loader and two disks", func(t *testing.T) { d.testLoader(t, image) })
}

// rootInitrd is initrd in a tree whose / is /dev/mapper/root, as on a machine that
// has booted so.
func (d *distro) rootInitrd(t *testing.T, tool string) string {
	t.Helper()
	d.over = true
	defer func() { d.over = false }()
	return d.initrd(t, tool)
}

// testLoader has systemd-boot start the kernel from one of two disks that would fit.
func (d *distro) testLoader(t *testing.T, image string) {
	once(t)
	const firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	if _, err := os.Stat(firmware); err != nil {
		testenv.Missing(t, firmware, "sh .ci/install-deps e2e")
	}
	loader := filepath.Join(bootPrograms(t, "252"), "systemd-bootx64.efi")
	testenv.Need(t, "mcopy", "mkfs.vfat")
	dir := t.TempDir()
	entry, disk := filepath.Join(dir, "entry"), filepath.Join(dir, "disk")
	options := "console=ttyS0 mitigations=off random.trust_cpu=on root=/dev/mapper/root ro init=/e2e-init"
	if err := os.WriteFile(entry, []byte("title e2e\nlinux /linux\ninitrd /initrd\noptions "+options+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	esp := d.fat(t, "esp"+strings.ReplaceAll(t.Name(), "/", "-"), map[string]string{"/EFI/BOOT/BOOTX64.EFI": loader, "/loader/entries/e2e.conf": entry, "/linux": d.kernel, "/initrd": image})
	makeGPT(t, disk, gptPart{esp, espType + espUUID}, gptPart{d.homeImage(), rootType + "os_9"}, gptPart{d.packed, rootType + "os_10"})
	testenv.Run(t, "cp", strings.Replace(firmware, "CODE", "VARS", 1), filepath.Join(dir, "vars"))
	m := bootMachine(t, machineConfig{firmware: []string{firmware, filepath.Join(dir, "vars")}, disks: []string{d.gptDisk("other"), disk}})
	m.await(ourQuestion, 5*time.Minute)
	m.enter(passphrase)
	_, up := m.await(`E2E-BOOTED root=/dev/mapper/root`, 2*time.Minute)
	t.Logf("booted after %.1f s", up.Seconds())
}
