package probe

import (
	"errors"
	"fmt"
	"io"

	"luksmith/internal/gpt"
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
	if !gpt.Protective(mbr) {
		// The kernel numbers logical partitions by itself; the UUID is its number.
		return &Partition{Number: number, Start: start, UUID: fmt.Sprintf("%08x-%02x", le.Uint32(mbr[440:]), number)}, nil
	}
	table, err := gpt.Read(disk, size, int64(sectorSize))
	if errors.Is(err, gpt.ErrNoTable) {
		return nil, ErrNoTable
	}
	if err != nil {
		return nil, err
	}
	p := table.Numbered(number)
	if p == nil || p.Start() != start {
		return nil, ErrNoTable
	}
	return &Partition{Number: number, Start: start, UUID: p.UUID, Label: p.Name}, nil
}
