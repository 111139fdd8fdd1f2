package probe

import (
	"bytes"
	"fmt"
	"strings"

	"luksmith/internal/gpt"
)

// fatGeometry is what the boot sector of a FAT file system says
// (Microsoft FAT specification, §3).
type fatGeometry struct {
	sector      int64 // bytes
	cluster     int64 // bytes
	fatStart    int64 // bytes from the start, as all below
	rootStart   int64 // 0 on FAT32
	rootEntries int64
	dataStart   int64
	rootCluster uint32 // FAT32
	clusters    int64
}

// maxFATRoot bounds how much of a root directory is searched for a label.
const maxFATRoot = 64

func fat(d reader) (*Identity, error) {
	b, err := d.piece(0, 512)
	if err != nil || b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, err
	}
	var serial, label []byte
	fat32 := bytes.Equal(b[82:87], []byte("FAT32"))
	switch {
	case fat32:
		serial, label = b[67:71], b[71:82]
	case bytes.Equal(b[54:58], []byte("FAT1")), bytes.Equal(b[54:59], []byte("FAT  ")):
		serial, label = b[39:43], b[43:54]
	default:
		return nil, nil
	}
	g := geometry(b, fat32)
	if g == nil {
		return nil, nil
	}
	id := &Identity{Type: "vfat", Label: fatLabel(label)}
	if n := le.Uint32(serial); n != 0 {
		id.UUID = fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)
	}
	// The entry in the root directory is what tools change; it wins.
	entry, err := g.volumeLabel(d)
	if err != nil {
		return nil, err
	}
	if entry != "" {
		id.Label = entry
	}
	return id, nil
}

// geometry returns nil for numbers that make no file system.
func geometry(b []byte, fat32 bool) *fatGeometry {
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, fats, entries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	fatSectors := int64(le.Uint16(b[22:]))
	if fat32 && fatSectors == 0 {
		fatSectors = int64(le.Uint32(b[36:]))
	}
	powerOfTwo := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if !powerOfTwo(sector) || sector < 512 || sector > 4096 || !powerOfTwo(perCluster) || reserved == 0 || fats == 0 || fats > 4 || fatSectors == 0 {
		return nil
	}
	g := &fatGeometry{sector: sector, cluster: sector * perCluster, fatStart: reserved * sector, rootEntries: entries}
	g.rootStart = g.fatStart + fats*fatSectors*sector
	g.dataStart = g.rootStart + (entries*32+sector-1)/sector*sector
	g.clusters = fatSectors * sector / 4
	if fat32 {
		g.rootCluster = le.Uint32(b[44:])
	}
	return g
}

// volumeLabel searches the root directory for the entry with the volume's label.
func (g *fatGeometry) volumeLabel(d reader) (string, error) {
	if g.rootCluster == 0 {
		label, _, err := g.search(d, g.rootStart, min(g.rootEntries*32, maxFATRoot<<10))
		return label, err
	}
	cluster := g.rootCluster
	for range maxFATRoot { // the chain may be a ring
		if cluster < 2 || int64(cluster) >= g.clusters+2 {
			return "", nil
		}
		label, end, err := g.search(d, g.dataStart+int64(cluster-2)*g.cluster, g.cluster)
		if err != nil || end || label != "" {
			return label, err
		}
		next, err := d.piece(g.fatStart+int64(cluster)*4, 4)
		if err != nil || next == nil {
			return "", err
		}
		cluster = le.Uint32(next) & 0x0fffffff
	}
	return "", nil
}

// search looks through a piece of a directory; end says that it ended there.
func (g *fatGeometry) search(d reader, offset, length int64) (label string, end bool, err error) {
	b, err := d.piece(offset, int(length))
	if err != nil || b == nil {
		return "", true, err
	}
	const (
		attrLabel = 0x08
		attrName  = 0x0f // a part of a long name
		attrDir   = 0x10
	)
	for ; len(b) >= 32; b = b[32:] {
		attr := b[11]
		switch {
		case b[0] == 0:
			return "", true, nil
		case b[0] == 0xe5, attr&attrName == attrName, attr&(attrLabel|attrDir) != attrLabel:
			continue
		}
		return fatLabel(b[:11]), true, nil
	}
	return "", false, nil
}

// fatLabel is 11 bytes of a label.
func fatLabel(b []byte) string {
	s := text(b)
	if strings.TrimSpace(s) == "NO NAME" {
		return ""
	}
	return s
}

// exfatLabel is the type of the directory entry with the label.
const exfatLabel = 0x83

// exfat has its serial number at 100 (exFAT specification §3.1) and its label in
// the root directory (§7.3).
func exfat(d reader) (*Identity, error) {
	b, err := d.piece(0, 512)
	if err != nil || b == nil || !bytes.Equal(b[3:11], []byte("EXFAT   ")) {
		return nil, err
	}
	n := le.Uint32(b[100:])
	id := &Identity{Type: "exfat", UUID: fmt.Sprintf("%04X-%04X", n>>16, n&0xffff)}
	sectorShift, clusterShift := b[108], b[109]
	if sectorShift < 9 || sectorShift > 12 || clusterShift > 25-sectorShift {
		return nil, nil
	}
	heap, root := int64(le.Uint32(b[88:]))<<sectorShift, le.Uint32(b[96:])
	if root < 2 {
		return nil, nil
	}
	// The label is among the first entries of the directory.
	dir, err := d.piece(heap+int64(root-2)<<(sectorShift+clusterShift), 512)
	if err != nil {
		return nil, err
	}
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		if dir[0] == exfatLabel && dir[1] <= 11 {
			id.Label = gpt.Text(dir[2 : 2+2*int(dir[1])])
		}
	}
	return id, nil
}
