package host

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	} else if !HasEFI(h.ESP) {
		return fmt.Errorf("%w: %s has no folder EFI, as if nothing were mounted there", ErrNoESP, h.ESP)
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
	} else if !HasEntries(h.Boot) {
		return fmt.Errorf("%w: %s has neither entries nor files of GRUB, as if nothing were mounted there", ErrNoBoot, h.Boot)
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

// findESP is the partition that the log names, in one of the usual places or wherever
// else it is mounted; where that cannot be told, the first usual place that looks like
// one. On a running machine it is a FAT file system; below another root it may be a copy.
func (h *Host) findESP() (first string) {
	logged := h.partition()
	for _, place := range usual {
		folder := h.join(place)
		if h.root == "/" && !isFAT(folder) || !HasEFI(folder) {
			continue
		}
		if first == "" {
			first = folder
		}
		if logged != "" && strings.EqualFold(h.guid(number(folder)), logged) {
			return folder
		}
	}
	return cmp.Or(h.mountedAs(logged), first)
}

// HasEFI reports whether a folder has one named EFI, as the EFI system partition does. To
// look mounts it, if that is automatic.
func HasEFI(folder string) bool {
	entries, _ := os.ReadDir(folder)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.EqualFold(e.Name(), "EFI") && e.IsDir() })
}

// mountedAs is where a partition is mounted, "" if it is not.
func (h *Host) mountedAs(guid string) string {
	text, err := readLimited(h.join("proc/self/mountinfo"), maxMounts)
	if err != nil || guid == "" {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): number, parent, major:minor, root, place; blanks in
		// names are \040.
		word := strings.Fields(line)
		if len(word) < 5 || word[3] != "/" || !strings.EqualFold(h.guid(word[2]), guid) {
			continue
		}
		if folder := h.join(strings.ReplaceAll(word[4], `\040`, " ")); HasEFI(folder) {
			return folder
		}
	}
	return ""
}

// maxMounts bounds the list of mounted file systems.
const maxMounts = 4 << 20

func isFAT(folder string) bool {
	var st unix.Statfs_t
	_, _ = os.ReadDir(folder) // which mounts it, if that is automatic
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

// HasEntries reports whether a folder has what the extended boot partition, or GRUB's
// file system, has.
func HasEntries(folder string) bool {
	return slices.ContainsFunc([]string{"loader/entries", "EFI/Linux", "grub", "grub2", "boot/grub", "boot/grub2"}, func(name string) bool {
		return isFolder(filepath.Join(folder, name))
	})
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

// number is that of the device that a folder is on, as the kernel writes it.
func number(path string) string {
	dev := device(path)
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// sameESP compares the partition that is mounted with the one that the log names:
// another disk's may have the same files. What neither kernel nor udev tells is left
// to the comparison of the files.
func (h *Host) sameESP() error {
	logged, mounted := h.partition(), h.guid(number(h.ESP))
	if logged == "" || mounted == "" || strings.EqualFold(logged, mounted) {
		return nil
	}
	return fmt.Errorf("%w: the log names %s, %s is %s", ErrOtherESP, logged, h.ESP, mounted)
}

// guid is that of the partition with the device number "8:1", "" if neither kernel nor
// udev tells.
func (h *Host) guid(number string) string {
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
