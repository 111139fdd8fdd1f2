package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/esp"
)

// usual are the places of the EFI system partition. /boot has a folder efi too where
// the partition is mounted on that, so it comes last.
var usual = []string{"efi", "boot/efi", "boot"}

// mount opens the partitions.
func (h *Host) mount(o Options) error {
	h.ESP = o.ESP
	if h.ESP == "" {
		if h.ESP = h.findESP(); h.ESP == "" {
			return fmt.Errorf("%w in /efi, /boot and /boot/efi; name it with --esp-path=", ErrNoESP)
		}
	}
	if err := h.sameESP(); err != nil {
		return err
	}
	files, err := h.open(h.ESP, o.Sync)
	if err != nil {
		return err
	}
	h.System.ESP = files
	h.Boot = o.Boot
	if h.Boot == "" {
		h.Boot = h.findBoot()
	}
	if h.Boot == "" {
		return nil
	}
	other, err := h.open(h.Boot, o.Sync)
	if err == nil {
		h.System.Others = append(h.System.Others, other)
	}
	return err
}

func (h *Host) open(folder string, sync bool) (chain.Files, error) {
	d, err := esp.Open(folder, sync)
	if err != nil {
		return nil, err
	}
	h.disks = append(h.disks, d)
	return d, nil
}

// findESP is the first of the usual places that looks like one. On a running
// machine it is a FAT file system; below another root it may be a copy.
func (h *Host) findESP() string {
	for _, place := range usual {
		folder := h.join(place)
		if h.root == "/" && !isFAT(folder) {
			continue
		}
		entries, err := os.ReadDir(folder) // which mounts it, if that is automatic
		if err != nil {
			continue
		}
		for _, e := range entries {
			if strings.EqualFold(e.Name(), "EFI") && e.IsDir() {
				return folder
			}
		}
	}
	return ""
}

func isFAT(folder string) bool {
	var st unix.Statfs_t
	if _, err := os.ReadDir(folder); err != nil {
		return false
	}
	return unix.Statfs(folder, &st) == nil && st.Type == unix.MSDOS_SUPER_MAGIC
}

// findBoot is the file system that has kernels or the files of GRUB, if that is not
// the ESP: /boot, or the root with its folder boot.
func (h *Host) findBoot() string {
	boot := h.join("boot")
	if boot == h.ESP || !isFolder(boot) {
		return ""
	}
	if device(boot) != device(h.root) || isFolder(filepath.Join(boot, "loader/entries")) || isFolder(filepath.Join(boot, "EFI/Linux")) {
		return boot
	}
	if isFolder(filepath.Join(boot, "grub")) || isFolder(filepath.Join(boot, "grub2")) {
		return h.root
	}
	return ""
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// device is the number of the file system that a folder is on, 0 if it is not there.
func device(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return uint64(info.Sys().(*syscall.Stat_t).Dev)
}

// sameESP compares the partition that is mounted with the one that the log names:
// another disk's may have the same files. What neither kernel nor udev tells is left
// to the comparison of the files.
func (h *Host) sameESP() error {
	logged, mounted := h.partition(), h.mounted()
	if logged == "" || mounted == "" || strings.EqualFold(logged, mounted) {
		return nil
	}
	return fmt.Errorf("%w: the log names %s, %s is %s", ErrOtherESP, logged, h.ESP, mounted)
}

// mounted is the GUID of the partition that the ESP is on.
func (h *Host) mounted() string {
	dev := device(h.ESP)
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, place := range []struct{ file, key string }{
		{"sys/dev/block/" + number + "/uevent", "PARTUUID="},
		{"run/udev/data/b" + number, "E:ID_PART_ENTRY_UUID="},
	} {
		text, err := readLimited(h.join(place.file), 64<<10)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), place.key); ok {
				return value
			}
		}
	}
	return ""
}
