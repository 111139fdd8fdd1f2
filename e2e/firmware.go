package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
)

// Firmware is UEFI firmware for a guest: Debian's build of EDK II.
type Firmware struct {
	// Variables is a file with the firmware's variables, which the guest changes:
	// a copy of one that the package has.
	Variables string
}

// Files of Debian's package ovmf. The variables of the second one trust a key whose
// private half is in the package, and Secure Boot is on.
const (
	firmwareCode      = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	firmwareVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	snakeoilVariables = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
	snakeoilKey       = "/usr/share/ovmf/PkKek-1-snakeoil"
)

// firmwareArguments is the command line of a machine that starts from its first disk.
func (c *Config) firmwareArguments(dir string) []string {
	args := append(c.machineArguments(dir, "q35,smm=on", "tpm-crb"),
		"-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+firmwareCode,
		"-drive", "if=pflash,format=raw,unit=1,file="+c.Firmware.Variables)
	args = append(args, c.diskArguments()...)
	for i, a := range args {
		if strings.Contains(a, "drive=disk0") {
			args[i] += ",bootindex=1"
		}
	}
	return args
}

// bootPrograms is the folder with systemd's boot loader and stub of a version, "252" or
// "257".
func bootPrograms(t testing.TB, version string) string {
	t.Helper()
	dir := "/usr/lib/systemd/boot/efi"
	if version == "257" {
		dir = filepath.Join(testenv.Systemd257(t).Root, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "systemd-bootx64.efi")); err != nil {
		testenv.Missing(t, "systemd-boot "+version+" in "+dir, "sh .ci/install-deps e2e")
	}
	return dir
}

// unifiedKernel makes a unified kernel image, as ukify does.
func unifiedKernel(stub, kernel, initrd []byte, cmdline, release string) []byte {
	return petest.Extend(stub,
		petest.Section{Name: ".osrel", Data: []byte("ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian\"\n")},
		petest.Section{Name: ".cmdline", Data: []byte(cmdline)},
		petest.Section{Name: ".uname", Data: []byte(release)},
		petest.Section{Name: ".initrd", Data: initrd},
		petest.Section{Name: ".linux", Data: kernel})
}

// makeDisk makes a disk with one EFI system partition of files, given by their path on
// it.
func makeDisk(t testing.TB, disk string, files map[string]string) {
	t.Helper()
	testenv.Need(t, "sfdisk", "mkfs.vfat", "mcopy", "mmd")
	const script = `truncate -s 200M "$0"
		printf 'label: gpt\nstart=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp\n' | sfdisk -q "$0"
		mkfs.vfat -F 32 --offset 2048 "$0" $((198 * 1024)) >/dev/null`
	testenv.Run(t, "sh", "-euc", script, disk)
	fillFAT(t, disk+"@@1M", files)
}

// fillFAT puts files into a FAT file system, named as mtools does.
func fillFAT(t testing.TB, image string, files map[string]string) {
	t.Helper()
	for to, from := range files {
		testenv.Run(t, "sh", "-euc", `at=
			for word in $(dirname "$2" | tr / ' '); do at=$at/$word; MTOOLS_SKIP_CHECK=1 mmd -D s -i "$0" "::$at" 2>/dev/null || :; done
			MTOOLS_SKIP_CHECK=1 mcopy -o -i "$0" "$1" "::$2"`, image, from, to)
	}
}
