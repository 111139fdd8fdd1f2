package gpt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf16"
)

// Errors of reading a table.
var (
	// ErrNoTable: there is no table whose checksums are right. A table that asks for
	// more than the limits of this package counts as none.
	ErrNoTable = errors.New("no GUID partition table")
	// ErrMalformed: the checksums are right, but what the table says cannot be:
	// partitions overlap, or lie outside of the disk.
	ErrMalformed = errors.New("malformed partition table")
	// ErrAmbiguous: there are tables for two sizes of sectors.
	ErrAmbiguous = errors.New("two partition tables, for sectors of different sizes")
)

// Limits of a table that is read. The kernel has the same on the size of the table of
// 128 entries that everybody makes.
const (
	maxEntries     = 1024
	maxEntriesSize = 1 << 20
	minEntrySize   = 128
	maxEntrySize   = 4096
)

// Fields of the header (UEFI specification 2.10, §5.3.2), in bytes from its start.
const (
	offHeaderSize  = 12
	offHeaderCRC   = 16
	offMyLBA       = 24
	offFirstUsable = 40
	offLastUsable  = 48
	offDiskGUID    = 56
	offEntriesLBA  = 72
	offEntryCount  = 80
	offEntrySize   = 84
	offEntriesCRC  = 88
	minHeaderSize  = 92
)

// Fields of an entry (§5.3.3), in bytes from its start.
const (
	offType     = 0
	offUnique   = 16
	offFirstLBA = 32
	offLastLBA  = 40
	offFlags    = 48
	offName     = 56
	endName     = 128
)

var le = binary.LittleEndian

// Table is a partition table whose checksums are right.
type Table struct {
	SectorSize int64  // bytes
	UUID       string // of the disk
	Backup     bool   // it was read from the copy at the end, because the first is damaged
	Partitions []Partition

	firstUsable, lastUsable uint64 // sectors
	entries, endEntries     uint64 // where its own entries stand
}

// Partition is an entry that is in use.
type Partition struct {
	Number int    // from 1
	Type   string // GUID, as text in lower case
	UUID   string // PARTUUID
	Name   string // PARTLABEL
	Flags  Flags

	first, last uint64 // sectors, as the table says
	sectorSize  int64
}

// Start is where the partition begins, in bytes, and Size its length. Before
// [Table.Check] they are what the table says; -1 is what no disk can have.
func (p *Partition) Start() int64 { return p.bytes(p.first) }

// Size is described at [Partition.Start].
func (p *Partition) Size() int64 {
	if p.last < p.first {
		return -1
	}
	return p.bytes(p.last - p.first + 1)
}

func (p *Partition) bytes(sectors uint64) int64 {
	if sectors > uint64(math.MaxInt64/p.sectorSize) {
		return -1
	}
	return int64(sectors) * p.sectorSize
}

// Read returns the table on a disk of size bytes with sectors of sectorSize: the one
// at its start or, if that is damaged, the copy at its end. What the entries say is
// not judged.
//
// Errors: [ErrNoTable], and those of disk.
func Read(disk io.ReaderAt, size, sectorSize int64) (*Table, error) {
	if sectorSize < 512 || sectorSize > 4096 {
		return nil, ErrNoTable
	}
	p := &place{disk, size, sectorSize}
	mbr, err := p.sectors(0, mbrSize)
	if err != nil {
		return nil, err
	}
	if !Protective(mbr) {
		return nil, ErrNoTable
	}
	for _, lba := range []uint64{1, uint64(size/sectorSize) - 1} {
		t, err := readAt(p, lba)
		if err != nil {
			return nil, err
		}
		if t != nil {
			t.Backup = lba != 1
			return t, nil
		}
	}
	return nil, ErrNoTable
}

// mbrSize is all of a master boot record.
const mbrSize = 512

// Protective reports whether an MBR, the first 512 bytes of a disk, is there only to
// announce a GPT. Without it neither the kernel nor libblkid looks for one.
func Protective(mbr []byte) bool {
	if len(mbr) < mbrSize || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return false
	}
	for i := 446; i < 510; i += 16 {
		if mbr[i+4] == 0xee {
			return true
		}
	}
	return false
}

// sectorSizes are those that a disk may have.
var sectorSizes = [...]int64{512, 1024, 2048, 4096}

// ReadImage returns the table of an image file, which does not say how large its
// sectors are, after [Table.Check]. A file that has tables for two sizes is refused:
// whoever uses it would see other partitions than we.
//
// Errors: [ErrNoTable], [ErrAmbiguous], [ErrMalformed], and those of disk.
func ReadImage(disk io.ReaderAt, size int64) (*Table, error) {
	var found *Table
	for _, sector := range sectorSizes {
		t, err := Read(disk, size, sector)
		switch {
		case errors.Is(err, ErrNoTable):
		case err != nil:
			return nil, err
		case found != nil:
			return nil, fmt.Errorf("%w: %d and %d bytes", ErrAmbiguous, found.SectorSize, sector)
		default:
			found = t
		}
	}
	if found == nil {
		return nil, ErrNoTable
	}
	return found, found.Check(size)
}

// place is a disk with its geometry.
type place struct {
	disk         io.ReaderAt
	size, sector int64
}

// sectors reads n bytes from a sector; nil if the disk ends before, so that a table
// is simply not found there. Errors of the device are kept.
func (p *place) sectors(lba uint64, n int64) ([]byte, error) {
	if lba > uint64(max(0, p.size)/p.sector) || n > p.size-int64(lba)*p.sector {
		return nil, nil
	}
	b := make([]byte, n)
	if _, err := p.disk.ReadAt(b, int64(lba)*p.sector); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// readAt reads the table whose header is in a sector. It is nil if there is none or a
// damaged one, so that the other is tried.
func readAt(p *place, lba uint64) (*Table, error) {
	h, err := p.sectors(lba, p.sector)
	if err != nil || !soundHeader(h, lba) {
		return nil, err
	}
	count, entrySize := int64(le.Uint32(h[offEntryCount:])), int64(le.Uint32(h[offEntrySize:]))
	if count < 1 || count > maxEntries || entrySize < minEntrySize || entrySize > maxEntrySize || count*entrySize > maxEntriesSize {
		return nil, nil
	}
	first := le.Uint64(h[offEntriesLBA:])
	entries, err := p.sectors(first, count*entrySize)
	if err != nil || entries == nil || crc(entries) != le.Uint32(h[offEntriesCRC:]) {
		return nil, err
	}
	t := &Table{
		SectorSize: p.sector, UUID: guid(h[offDiskGUID:]), firstUsable: le.Uint64(h[offFirstUsable:]), lastUsable: le.Uint64(h[offLastUsable:]),
		entries: first, endEntries: first + uint64((count*entrySize+p.sector-1)/p.sector),
	}
	number := 0
	for e := range slices.Chunk(entries, int(entrySize)) {
		number++
		if !bytes.Equal(e[offType:offUnique], make([]byte, offUnique)) {
			t.Partitions = append(t.Partitions, newPartition(number, e, p.sector))
		}
	}
	return t, nil
}

// soundHeader checks a header by itself.
func soundHeader(h []byte, lba uint64) bool {
	if !bytes.HasPrefix(h, []byte("EFI PART")) || le.Uint64(h[offMyLBA:]) != lba {
		return false
	}
	size := le.Uint32(h[offHeaderSize:])
	if size < minHeaderSize || int64(size) > int64(len(h)) {
		return false
	}
	want := le.Uint32(h[offHeaderCRC:])
	clear(h[offHeaderCRC : offHeaderCRC+4]) // the checksum is computed over zeros in its own place
	return crc(h[:size]) == want
}

func newPartition(number int, e []byte, sector int64) Partition {
	return Partition{
		Number: number, Type: guid(e[offType:]), UUID: guid(e[offUnique:]), Name: Text(e[offName:endName]),
		Flags: Flags(le.Uint64(e[offFlags:])), first: le.Uint64(e[offFirstLBA:]), last: le.Uint64(e[offLastLBA:]), sectorSize: sector,
	}
}

// Check reports a table that cannot be that of a disk of size bytes: [ErrMalformed].
// Nothing may be written into a partition of such a table, since it is not known what
// else lies there.
func (t *Table) Check(size int64) error {
	for i := range t.Partitions {
		if err := t.checkPlace(&t.Partitions[i], uint64(size/t.SectorSize)); err != nil {
			return err
		}
	}
	return t.checkOverlap()
}

// checkPlace checks one partition of a disk of that many sectors. A protective MBR and
// a header come before every partition, whatever the header says about what is usable.
func (t *Table) checkPlace(p *Partition, end uint64) error {
	onEntries := p.first < t.endEntries && p.last >= t.entries
	switch {
	case p.last < p.first:
		return fmt.Errorf("%w: partition %d ends before it begins", ErrMalformed, p.Number)
	case p.last >= end:
		return fmt.Errorf("%w: partition %d lies outside of the disk", ErrMalformed, p.Number)
	case p.first < max(2, t.firstUsable) || p.last > t.lastUsable || onEntries:
		return fmt.Errorf("%w: partition %d lies where the table itself stands", ErrMalformed, p.Number)
	}
	return nil
}

func (t *Table) checkOverlap() error {
	list := make([]*Partition, len(t.Partitions)) // the boot helper has the code that sorts pointers, stably
	for i := range t.Partitions {
		list[i] = &t.Partitions[i]
	}
	slices.SortStableFunc(list, func(a, b *Partition) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(list); i++ {
		if list[i].first <= list[i-1].last {
			return fmt.Errorf("%w: partitions %d and %d overlap", ErrMalformed, list[i-1].Number, list[i].Number)
		}
	}
	return nil
}

// Numbered is the partition with that number, nil without one.
func (t *Table) Numbered(number int) *Partition {
	i := slices.IndexFunc(t.Partitions, func(p Partition) bool { return p.Number == number })
	if i < 0 {
		return nil
	}
	return &t.Partitions[i]
}

// guid is the text of a GUID as UEFI stores it: the first three groups are
// little-endian. All zeros are no GUID.
func guid(b []byte) string {
	if bytes.Equal(b[:16], make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// Text is text as firmware stores it, in little-endian UTF-16, up to the first zero.
func Text(b []byte) string {
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
