package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"luksmith/internal/gpt"
)

// Superblock says what is on a device of that many bytes. Containers come first: a
// member of a RAID1 has the content of the array at its start.
//
// Errors: [ErrUnknown], and those of r.
func Superblock(r io.ReaderAt, size int64) (*Identity, error) {
	d, err := newReader(r, size)
	if err != nil {
		return nil, err
	}
	for _, find := range []func(reader) (*Identity, error){raid, luks, lvm, btrfs, xfs, ext, fat, exfat, ntfs, iso9660, f2fs, erofs, squashfs, luksCopy} {
		id, err := find(d)
		if err != nil {
			return nil, err
		}
		if id != nil {
			return id, nil
		}
	}
	return nil, ErrUnknown
}

// LUKS on-disk formats 1 (§2) and 2 (§2.1): both have the UUID at 168, version 2 a
// label at 24.
func luks(d reader) (*Identity, error) {
	b, err := d.piece(0, luksSize)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(b, []byte("LUKS\xba\xbe\x00\x01")) {
		return &Identity{Type: LUKS, UUID: text(b[168:208])}, nil
	}
	if bytes.HasPrefix(b, []byte("LUKS\xba\xbe\x00\x02")) {
		return luks2(b), nil
	}
	return nil, nil
}

const luksSize = 512 // what is read of a header

// luksCopy finds the second copy of a LUKS2 header whose first one is overwritten:
// at one of several offsets, with the first four bytes of the magic reversed.
func luksCopy(d reader) (*Identity, error) {
	for offset := int64(0x4000); offset <= 0x400000; offset *= 2 {
		b, err := d.piece(offset, luksSize)
		if err != nil || b == nil {
			return nil, err
		}
		if bytes.HasPrefix(b, []byte("SKUL\xba\xbe\x00\x02")) && be.Uint64(b[256:]) == uint64(offset) { // hdr_offset
			return luks2(b), nil
		}
	}
	return nil, nil
}

func luks2(b []byte) *Identity {
	return &Identity{Type: LUKS, UUID: text(b[168:208]), Label: text(b[24:72])}
}

// raid finds members of Linux software RAID (include/uapi/linux/raid/md_p.h):
// formats 1.1, 1.2, 1.0 and 0.90.
func raid(d reader) (*Identity, error) {
	const magic = 0xa92b4efc
	for _, offset := range []int64{0, 4096, (d.size/512 - 16) &^ 7 * 512} {
		b, err := d.piece(offset, 512)
		if err != nil {
			return nil, err
		}
		// super_offset, in sectors, guards against a chance match
		if b != nil && le.Uint32(b) == magic && le.Uint32(b[4:]) == 1 && le.Uint64(b[144:]) == uint64(offset/512) {
			return &Identity{Type: RAID, UUID: hexUUID(b[16:32]), Label: text(b[32:64])}, nil
		}
	}
	b, err := d.piece(d.size&^0xffff-0x10000, 64)
	if err != nil || b == nil {
		return nil, err
	}
	for _, order := range []binary.ByteOrder{le, be} {
		if order.Uint32(b) == magic && order.Uint32(b[4:]) == 0 {
			var uuid []byte
			for _, word := range [][]byte{b[20:], b[52:], b[56:], b[60:]} {
				uuid = be.AppendUint32(uuid, order.Uint32(word))
			}
			return &Identity{Type: RAID, UUID: hexUUID(uuid)}, nil
		}
	}
	return nil, nil
}

// lvm finds physical volumes: a label in one of the first four sectors
// (lib/format_text/layout.h of LVM2).
func lvm(d reader) (*Identity, error) {
	b, err := d.piece(0, 4*512)
	if err != nil || b == nil {
		return nil, err
	}
	for i := 0; i < len(b); i += 512 {
		if s := b[i : i+512]; bytes.HasPrefix(s, []byte("LABELONE")) && bytes.Equal(s[24:32], []byte("LVM2 001")) {
			return &Identity{Type: LVM, UUID: lvmUUID(text(s[32:64]))}, nil
		}
	}
	return nil, nil
}

// lvmUUID groups 32 characters as 6-4-4-4-4-4-6.
func lvmUUID(s string) string {
	if len(s) != 32 {
		return s
	}
	return strings.Join([]string{s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:]}, "-")
}

// Documentation/filesystems/ext4/super.rst.
func ext(d reader) (*Identity, error) {
	b, err := d.piece(1024, 256)
	if err != nil || b == nil || le.Uint16(b[56:]) != 0xef53 {
		return nil, err
	}
	const journalDevice = 0x0008 // s_feature_incompat
	if le.Uint32(b[96:])&journalDevice != 0 {
		return nil, nil
	}
	// The driver ext4 mounts ext2 and ext3 too.
	return &Identity{Type: "ext4", UUID: hexUUID(b[104:120]), Label: text(b[120:136])}, nil
}

// fs/xfs/libxfs/xfs_format.h: struct xfs_dsb.
func xfs(d reader) (*Identity, error) {
	b, err := d.piece(0, 512)
	if err != nil || !bytes.HasPrefix(b, []byte("XFSB")) {
		return nil, err
	}
	return &Identity{Type: "xfs", UUID: hexUUID(b[32:48]), Label: text(b[108:120])}, nil
}

// include/uapi/linux/btrfs_tree.h: struct btrfs_super_block.
func btrfs(d reader) (*Identity, error) {
	b, err := d.piece(64<<10, 1024)
	if err != nil || b == nil || !bytes.Equal(b[64:72], []byte("_BHRfS_M")) {
		return nil, err
	}
	return &Identity{Type: "btrfs", UUID: hexUUID(b[32:48]), Label: text(b[0x12b : 0x12b+256])}, nil
}

// ntfs has its serial number at 72; the label is a file and not read.
func ntfs(d reader) (*Identity, error) {
	b, err := d.piece(0, 512)
	if err != nil || b == nil || !bytes.Equal(b[3:11], []byte("NTFS    ")) {
		return nil, err
	}
	return &Identity{Type: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:]))}, nil
}

// ECMA-119 §8.4: the primary volume descriptor.
func iso9660(d reader) (*Identity, error) {
	b, err := d.piece(32<<10, 2048)
	if err != nil || b == nil || !bytes.Equal(b[:6], []byte("\x01CD001")) {
		return nil, err
	}
	created, modified := b[813:830], b[830:847]
	id := &Identity{Type: "iso9660", Label: text(b[40:72])}
	for _, date := range [][]byte{modified, created} { // libblkid prefers the modification
		if s := string(date[:16]); strings.Trim(s, "0123456789") == "" && strings.Trim(s, "0") != "" {
			id.UUID = strings.Join([]string{s[:4], s[4:6], s[6:8], s[8:10], s[10:12], s[12:14], s[14:16]}, "-")
			break
		}
	}
	return id, nil
}

// include/linux/f2fs_fs.h: struct f2fs_super_block.
func f2fs(d reader) (*Identity, error) {
	b, err := d.piece(1024, 1024)
	if err != nil || b == nil || le.Uint32(b) != 0xf2f52010 {
		return nil, err
	}
	return &Identity{Type: "f2fs", UUID: hexUUID(b[108:124]), Label: gpt.Text(b[124:][:2*127])}, nil
}

// fs/erofs/erofs_fs.h: struct erofs_super_block.
func erofs(d reader) (*Identity, error) {
	b, err := d.piece(1024, 128)
	if err != nil || b == nil || le.Uint32(b) != 0xe0f5e1e2 {
		return nil, err
	}
	return &Identity{Type: "erofs", UUID: hexUUID(b[48:64]), Label: text(b[64:80])}, nil
}

// squashfs has neither UUID nor label (fs/squashfs/squashfs_fs.h).
func squashfs(d reader) (*Identity, error) {
	b, err := d.piece(0, 96)
	if err != nil || !bytes.HasPrefix(b, []byte("hsqs")) {
		return nil, err
	}
	return &Identity{Type: "squashfs"}, nil
}
