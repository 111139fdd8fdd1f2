package luks2

import "errors"

// signature is what another file system, volume manager or partition table puts
// at a fixed place. libcryptsetup asks libblkid; this table has the superblocks
// and tables of libblkid that such a place gives away and that are in use.
type signature struct {
	name   string
	offset int64
	magic  string
}

// Signatures of what has partitions.
const (
	gptTable   = "a GPT partition table"
	bootSector = "a partition table or boot sector"
)

var signatures = [...]signature{
	{"LVM2 physical volume", 0, "LABELONE"},
	{"LVM2 physical volume", 512, "LABELONE"},
	{"LVM2 physical volume", 1024, "LABELONE"},
	{"LVM2 physical volume", 1536, "LABELONE"},
	{gptTable, 512, "EFI PART"},
	{gptTable, 4096, "EFI PART"},
	{"ext2/3/4", 0x438, "\x53\xef"},
	{"XFS", 0, "XFSB"},
	{"Btrfs", 0x10040, "_BHRfS_M"},
	{"F2FS", 1024, "\x10\x20\xf5\xf2"},
	{"EROFS", 1024, "\xe2\xe1\xf5\xe0"},
	{"NILFS2", 1030, "\x34\x34"},
	{"HFS+", 1024, "H+"},
	{"SquashFS", 0, "hsqs"},
	{"JFS", 32768, "JFS1"},
	{"ReiserFS", 0x10034, "ReIsErFs"},
	{"ReiserFS", 0x10034, "ReIsEr2Fs"},
	{"GFS2", 0x10000, "\x01\x16\x19\x70"},
	{"OCFS2", 0x800, "OCFSV2"},
	{"ISO 9660", 0x8001, "CD001"},
	{"UDF", 0x8001, "BEA01"},
	{"NTFS", 3, "NTFS    "},
	{"exFAT", 3, "EXFAT   "},
	{"FAT", 54, "FAT"},
	{"FAT", 82, "FAT32"},
	{"BitLocker", 3, "-FVE-FS-"},
	{bootSector, 510, "\x55\xaa"}, // NTFS, exFAT and FAT have it too
	{"APFS", 32, "NXSB"},
	{"swap", 4086, "SWAPSPACE2"},
	{"swap", 4086, "SWAP-SPACE"},
	{"swap, suspended", 4086, "S1SUSPEND"},
	{"swap", 16374, "SWAPSPACE2"},
	{"swap", 65526, "SWAPSPACE2"},
	{"Linux RAID", 0, "\xfc\x4e\x2b\xa9"},
	{"Linux RAID", 4096, "\xfc\x4e\x2b\xa9"},
	{"bcache", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"dm-integrity", 0, "integrt\x00"},
	{"dm-verity", 0, "verity\x00\x00"},
	{"dm-snapshot", 0, "SnAp"},
	{"VDO", 0, "dmvdo001"},
}

// isMember reports whether a device with that signature is a part of another device,
// whose content it holds: nobody should look behind that, as libcryptsetup does not.
func isMember(name string) bool {
	switch name {
	case "LVM2 physical volume", "Linux RAID", "bcache", "dm-integrity", "VDO":
		return true
	}
	return false
}

// foreignSignature names the first signature found on the device, or returns "".
// Errors of reading count as nothing found: they show up where data is needed.
func foreignSignature(f storage) string {
	var buf [16]byte
	for _, s := range signatures {
		b := buf[:len(s.magic)]
		if _, err := f.ReadAt(b, s.offset); err == nil && string(b) == s.magic {
			return s.name
		}
	}
	return ""
}

// HoldsError is [ErrNotLUKS2] about a device that holds something else.
type HoldsError struct{ Name string } // "XFS"

func (e *HoldsError) Error() string { return ErrNotLUKS2.Error() + ": it holds " + e.Name }

// Unwrap makes it ErrNotLUKS2.
func (e *HoldsError) Unwrap() error { return ErrNotLUKS2 }

// Partitions reports whether the volume may be in a partition of the device.
func (e *HoldsError) Partitions() bool { return e.Name == gptTable || e.Name == bootSector }

// signatureError is ErrSignature with the name of what was found.
type signatureError struct{ name string }

func (e *signatureError) Error() string {
	return "one header copy is damaged and the device has the signature of " + e.name
}

// Hint says how to find out what the device is.
func (e *signatureError) Hint() string {
	return "look at the device with `wipefs DEVICE`; if it really is the volume, `cryptsetup repair DEVICE` restores the header"
}

func (e *signatureError) Is(target error) bool { return errors.Is(target, ErrSignature) }
