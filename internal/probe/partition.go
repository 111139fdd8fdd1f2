package probe

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// ErrNoTable: the disk has no partition table that can be read, or it has no
// partition of that number and place.
var ErrNoTable = errors.New("no such partition in a partition table")

// Partition is an entry of a partition table.
type Partition struct {
	Number int    // from 1
	Start  int64  // bytes
	UUID   string // PARTUUID: of the entry in a GPT; disk and number in an MBR
	Label  string // PARTLABEL, of a GPT
}

// Limits of a GPT that is read. The kernel has the same on the size of the table
// of 128 entries that everybody makes.
const (
	maxEntries     = 1024
	maxEntriesSize = 1 << 20
	minEntrySize   = 128
	maxEntrySize   = 4096
)

// FindPartition returns the entry with that number of the partition table on a
// disk of size bytes with logical sectors of sectorSize. The start, in bytes, is
// where the kernel has the partition; a table that says something else is not the
// one that the kernel read.
//
// Errors: [ErrNoTable], and those of disk.
func FindPartition(disk io.ReaderAt, size int64, sectorSize, number int, start int64) (*Partition, error) {
	d := reader{ReaderAt: disk, size: size}
	if sectorSize < 512 || sectorSize > 4096 || number < 1 {
		return nil, ErrNoTable
	}
	mbr, err := d.piece(0, 512)
	if err != nil {
		return nil, err
	}
	if mbr == nil || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil, ErrNoTable
	}
	if !protective(mbr) {
		// The kernel numbers logical partitions by itself; the UUID is its number.
		return &Partition{Number: number, Start: start, UUID: fmt.Sprintf("%08x-%02x", le.Uint32(mbr[440:]), number)}, nil
	}
	for _, lba := range []int64{1, size/int64(sectorSize) - 1} {
		table, err := readGPT(d, int64(sectorSize), lba)
		if err != nil {
			return nil, err
		}
		if table != nil {
			return table.partition(number, start)
		}
	}
	return nil, ErrNoTable
}

// protective reports whether an MBR is there only to announce a GPT.
func protective(mbr []byte) bool {
	for i := 446; i < 510; i += 16 {
		if mbr[i+4] == 0xee {
			return true
		}
	}
	return false
}

// gpt is a table whose checksums are right.
type gpt struct {
	sector, entrySize int64
	entries           []byte
}

// readGPT reads the table whose header is in a sector (UEFI specification 2.10,
// §5.3). It is nil if there is none or a wrong one, so that the other is tried.
func readGPT(d reader, sector, lba int64) (*gpt, error) {
	if lba < 1 {
		return nil, nil
	}
	h, err := d.piece(lba*sector, int(sector))
	if err != nil || !bytes.HasPrefix(h, []byte("EFI PART")) {
		return nil, err
	}
	headerSize := le.Uint32(h[12:])
	if headerSize < 92 || int64(headerSize) > sector || le.Uint64(h[24:]) != uint64(lba) {
		return nil, nil
	}
	want := le.Uint32(h[16:])
	clear(h[16:20]) // the checksum is computed over zeros in its own place
	if crc32.ChecksumIEEE(h[:headerSize]) != want {
		return nil, nil
	}
	first, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if n == 0 || n > maxEntries || size < minEntrySize || size > maxEntrySize || n*size > maxEntriesSize || first > uint64(d.size/sector) {
		return nil, nil
	}
	b, err := d.piece(int64(first)*sector, int(n*size))
	if err != nil || b == nil || crc32.ChecksumIEEE(b) != le.Uint32(h[88:]) {
		return nil, err
	}
	return &gpt{sector, int64(size), b}, nil
}

// partition returns an entry that begins where the kernel says.
func (g *gpt) partition(number int, start int64) (*Partition, error) {
	at := int64(number-1) * g.entrySize
	if at+g.entrySize > int64(len(g.entries)) {
		return nil, ErrNoTable
	}
	e := g.entries[at : at+g.entrySize]
	unused := bytes.Equal(e[:16], make([]byte, 16)) // type
	if unused || le.Uint64(e[32:]) != uint64(start/g.sector) || start%g.sector != 0 {
		return nil, ErrNoTable
	}
	return &Partition{Number: number, Start: start, UUID: guid(e[16:32]), Label: utf16Text(e[56:128])}, nil
}

// guid is the text of a GUID as UEFI stores it: the first three groups are
// little-endian.
func guid(b []byte) string {
	return hexUUID([]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]})
}

// utf16Text is a name in little-endian UTF-16, up to the first zero.
func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := le.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
