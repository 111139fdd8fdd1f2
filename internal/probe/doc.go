// Package probe reads what names a block device: the superblocks of LUKS and of
// the file systems that hold keys, and partition tables. It is for systems
// without udev, whose links in /dev/disk say the same.
//
// Everything that is read is untrusted. Each function reads a bounded number of
// small pieces, whatever stands there; names and labels come back as they are on
// the disk and must be escaped before they reach a terminal.
//
// The values are those of libblkid, which udev uses: the same types, the same
// form of UUIDs and labels.
package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// ErrUnknown: nothing that this package knows is on the device.
var ErrUnknown = errors.New("no known superblock")

// Types of [Identity], as libblkid names them. File systems have the name under
// which the kernel mounts them.
const (
	LUKS = "crypto_LUKS"
	RAID = "linux_raid_member"
	LVM  = "LVM2_member"
)

// Identity is what a superblock says about its device.
type Identity struct {
	Type  string // LUKS, RAID, LVM, "ext4", "vfat", "exfat", "xfs", "btrfs", "iso9660", "ntfs"
	UUID  string // empty if there is none
	Label string
}

// headSize covers what most superblocks need, so that one read is enough for them.
const headSize = 8 << 10

// reader reads pieces of a device.
type reader struct {
	io.ReaderAt
	size int64
	head []byte // the first bytes
}

func newReader(r io.ReaderAt, size int64) (reader, error) {
	d := reader{ReaderAt: r, size: size}
	head, err := d.piece(0, int(max(0, min(size, headSize))))
	d.head = head
	return d, err
}

// piece returns n bytes at an offset; nil if the device ends before, so that a
// superblock is simply not found there. Errors of the device are kept.
func (r reader) piece(offset int64, n int) ([]byte, error) {
	if offset < 0 || offset > r.size-int64(n) {
		return nil, nil
	}
	if offset+int64(n) <= int64(len(r.head)) {
		return r.head[offset : offset+int64(n) : offset+int64(n)], nil
	}
	b := make([]byte, n)
	if _, err := r.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// text is a label or UUID in a field: up to the first zero byte, without spaces
// at the end, and what is not UTF-8 replaced.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	s := strings.TrimRight(string(b), " \t\n")
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// hexUUID is the usual form of 16 bytes; empty for all zeros.
func hexUUID(b []byte) string {
	if len(b) != 16 || bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	const digits = "0123456789abcdef"
	var s strings.Builder
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			s.WriteByte('-')
		}
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}
