package gpt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	other "github.com/diskfs/go-diskfs/partition/gpt"

	"luksmith/internal/test/testenv"
)

// entry is a partition as the tests write it.
type entry struct {
	typ, name   string
	flags       Flags
	first, last uint64
}

const rootAMD64 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"

// geometry is what the header of a made table says.
type geometry struct {
	sector, size     int64
	count, entrySize uint32
	firstUsable      uint64
	entries          uint64 // sector
}

const testSectors = 4096

func usual(sector int64) geometry {
	return geometry{sector: sector, size: testSectors * sector, count: 128, entrySize: 128, firstUsable: 34, entries: 2}
}

// disk writes a table at the start of a disk and, the entries being the same, a
// header at its end.
func (g geometry) disk(list ...entry) []byte {
	b := make([]byte, g.size)
	b[510], b[511], b[450] = 0x55, 0xaa, 0xee
	table := make([]byte, min(int64(g.count)*int64(g.entrySize), g.size/2))
	for i, e := range list {
		p := table[i*int(g.entrySize):]
		copy(p[offType:], stored(e.typ))
		copy(p[offUnique:], stored(fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", i+1)))
		le.PutUint64(p[offFirstLBA:], e.first)
		le.PutUint64(p[offLastLBA:], e.last)
		le.PutUint64(p[offFlags:], uint64(e.flags))
		for j, c := range []rune(e.name) {
			le.PutUint16(p[offName+2*j:], uint16(c))
		}
	}
	last := uint64(g.size/g.sector) - 1
	if at := int64(g.entries) * g.sector; at+int64(len(table)) <= g.size {
		copy(b[at:], table)
	}
	for _, lba := range []uint64{1, last} {
		h := b[int64(lba)*g.sector:]
		copy(h, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(h[offHeaderSize:], minHeaderSize)
		le.PutUint64(h[offMyLBA:], lba)
		le.PutUint64(h[32:], last+1-lba)
		le.PutUint64(h[offFirstUsable:], g.firstUsable)
		le.PutUint64(h[offLastUsable:], last-1)
		copy(h[offDiskGUID:], stored("dddddddd-0000-4000-8000-000000000000"))
		le.PutUint64(h[offEntriesLBA:], g.entries)
		le.PutUint32(h[offEntryCount:], g.count)
		le.PutUint32(h[offEntrySize:], g.entrySize)
		le.PutUint32(h[offEntriesCRC:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[offHeaderCRC:], crc32.ChecksumIEEE(h[:minHeaderSize]))
	}
	return b
}

// stored is a GUID as UEFI stores it; all zeros for "".
func stored(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		panic(err)
	}
	b = append(b, make([]byte, 16-len(b))...)
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

func readImage(b []byte) (*Table, error) { return ReadImage(bytes.NewReader(b), int64(len(b))) }

func TestReadImage(t *testing.T) {
	t.Parallel()
	for _, sector := range []int64{512, 4096} {
		g := usual(sector)
		disk := g.disk(entry{rootAMD64, "fooOS_1", ReadOnly, 40, 99}, entry{}, entry{"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Häuser", NoAuto, 100, 100})
		broken := slices.Clone(disk)
		broken[sector+60] ^= 1
		for _, b := range [][]byte{disk, broken} {
			table, err := readImage(b)
			if err != nil {
				t.Fatalf("%d: %v", sector, err)
			}
			p := table.Numbered(1)
			role, arch := p.Role()
			if table.SectorSize != sector || len(table.Partitions) != 2 || p.Start() != 40*sector || p.Size() != 60*sector || p.Flags != ReadOnly ||
				p.Name != "fooOS_1" || p.UUID != "aaaaaaaa-0000-4000-8000-000000000001" || role != Root || arch != "amd64" {
				t.Errorf("%d: %+v", sector, table)
			}
			if p := table.Numbered(3); p == nil || p.Name != "Häuser" || p.Discoverable() || p.Size() != sector {
				t.Errorf("%d: %+v", sector, p)
			}
			if table.Backup != bytes.Equal(b, broken) {
				t.Errorf("%d: read from the backup: %v", sector, table.Backup)
			}
		}
	}
}

// TestHostileTables are tables with right checksums that no partitioning program makes.
func TestHostileTables(t *testing.T) {
	t.Parallel()
	part := func(first, last uint64) entry { return entry{rootAMD64, "r", 0, first, last} }
	with := func(change func(*geometry)) geometry {
		g := usual(512)
		change(&g)
		return g
	}
	for _, tt := range []struct {
		name string
		g    geometry
		list []entry
		want error
	}{
		{"overlapping", usual(512), []entry{part(40, 99), part(99, 120)}, ErrMalformed},
		{"one inside the other", usual(512), []entry{part(40, 200), part(50, 60), part(61, 62)}, ErrMalformed},
		{"outside of the disk", usual(512), []entry{part(40, testSectors+5)}, ErrMalformed},
		{"far outside of the disk", usual(512), []entry{part(40, 1<<63+40)}, ErrMalformed},
		{"length of nothing but ones", usual(512), []entry{part(0, 1<<64-1)}, ErrMalformed},
		{"ends before it begins", usual(512), []entry{part(99, 40)}, ErrMalformed},
		{"on the header", with(func(g *geometry) { g.firstUsable = 0 }), []entry{part(1, 1)}, ErrMalformed},
		{"on the entries", with(func(g *geometry) { g.firstUsable = 0 }), []entry{part(10, 40)}, ErrMalformed},
		{"on the backup", usual(512), []entry{part(40, testSectors-1)}, ErrMalformed},
		{"four thousand million entries", with(func(g *geometry) { g.count = 1<<32 - 1 }), nil, ErrNoTable},
		{"entries larger than memory", with(func(g *geometry) { g.entrySize = 1<<32 - 128 }), nil, ErrNoTable},
		{"small entries", with(func(g *geometry) { g.entrySize = 64 }), nil, ErrNoTable},
		{"entries of no size", with(func(g *geometry) { g.entrySize = 0 }), nil, ErrNoTable},
		{"no entries", with(func(g *geometry) { g.count = 0 }), nil, ErrNoTable},
		{"entries outside of the disk", with(func(g *geometry) { g.entries = 1 << 60 }), nil, ErrNoTable},
		{"entries at the last sector", with(func(g *geometry) { g.entries = testSectors - 1 }), nil, ErrNoTable},
	} {
		if table, err := readImage(tt.g.disk(tt.list...)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, %v; want %v", tt.name, table, err, tt.want)
		}
	}
}

func TestTableForTwoSectorSizesIsRefused(t *testing.T) {
	t.Parallel()
	big := usual(4096)
	b := big.disk(entry{rootAMD64, "big", 0, 40, 50})
	small := geometry{512, int64(len(b)), 8, 128, 34, 2}
	copy(b[512:4096], small.disk()[512:4096])
	if _, err := readImage(b); !errors.Is(err, ErrAmbiguous) {
		t.Error(err)
	}
}

func TestDiskWithoutProtectiveMBRHasNoGPT(t *testing.T) {
	t.Parallel()
	b := usual(512).disk()
	b[450] = 0x83
	if _, err := readImage(b); !errors.Is(err, ErrNoTable) {
		t.Error(err)
	}
	for _, short := range []int{0, 511, 512, 1024} {
		if _, err := readImage(b[:short]); !errors.Is(err, ErrNoTable) {
			t.Error(short, err)
		}
	}
}

// TestReadAsOthersWrite reads what sfdisk and go-diskfs made, and has go-diskfs read
// what sfdisk made.
func TestReadAsOthersWrite(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sfdisk")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "-q", path)
	cmd.Stdin = strings.NewReader("label: gpt\nsize=2MiB, type=" + rootAMD64 + ", name=\"fooOS_2\", attrs=\"GUID:60,63\"\nsize=1MiB, type=swap, name=s\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sameAsDiskfs(t, path, 512)
	four := filepath.Join(t.TempDir(), "disk4096")
	f, err := os.OpenFile(four, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	table := &other.Table{LogicalSectorSize: 4096, PhysicalSectorSize: 4096, ProtectiveMBR: true, Partitions: []*other.Partition{
		{Index: 1, Start: 256, Size: 2 << 20, Type: other.Type(strings.ToUpper(rootAMD64)), Name: "fooOS_2", Attributes: uint64(ReadOnly | NoAuto)},
		{Index: 4, Start: 1024, Size: 1 << 20, Type: other.LinuxSwap, Name: "s"},
	}}
	if err := table.Write(f, 16<<20); err != nil {
		t.Fatal(err)
	}
	sameAsDiskfs(t, four, 4096)
}

func sameAsDiskfs(t *testing.T, path string, sector int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ReadImage(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Read(file.New(f, true), sector, sector)
	if err != nil {
		t.Fatal(err)
	}
	if len(ours.Partitions) != 2 || len(theirs.Partitions) != 2 || ours.SectorSize != int64(sector) || !strings.EqualFold(ours.UUID, theirs.GUID) {
		t.Fatalf("%+v, %+v", ours, theirs)
	}
	for i, p := range ours.Partitions {
		q := theirs.Partitions[i]
		same := p.Number == q.Index && strings.EqualFold(p.Type, string(q.Type)) && strings.EqualFold(p.UUID, q.GUID) && p.Name == q.Name &&
			p.Flags == Flags(q.Attributes) && p.Start() == int64(q.Start)*int64(sector) && p.Size() == int64(q.Size)
		if !same {
			t.Errorf("we read %+v, go-diskfs %+v", p, *q)
		}
	}
	if p := ours.Partitions[0]; p.Flags != ReadOnly|NoAuto || p.Name != "fooOS_2" || p.Type != rootAMD64 {
		t.Errorf("%+v", p)
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	const usrAMD64, home = "8484680c-9521-48c6-9c11-b0720656f69e", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"
	table, err := readImage(usual(512).disk(
		entry{rootAMD64, "fooOS_9", 0, 40, 40}, entry{rootAMD64, "fooOS_10", 0, 41, 41}, entry{rootAMD64, "fooOS_11", NoAuto, 42, 42},
		entry{rootAMD64, "_empty", 0, 43, 43}, entry{"b921b045-1df0-41c3-af44-4c6f280d3fae", "fooOS_12", 0, 44, 44},
		entry{usrAMD64, "a", 0, 45, 45}, entry{usrAMD64, "a", 0, 46, 46}, entry{home, "b", 0, 47, 47}, entry{home, "c", 0, 48, 48},
	))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		role Role
		arch string
		want []int
	}{
		{Root, "amd64", []int{2}}, {Root, "arm64", []int{5}}, {Root, "riscv64", nil}, {Usr, "amd64", []int{6, 7}}, {Home, "amd64", []int{8, 9}}, {Swap, "amd64", nil},
	} {
		var got []int
		for _, p := range Newest(table.Partitions, tt.role, tt.arch) {
			got = append(got, p.Number)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s %s: %v, want %v", tt.role, tt.arch, got, tt.want)
		}
	}
}

// FuzzReadImage makes the checksums of what the fuzzer gives right, or none of its
// tables would get any further.
func FuzzReadImage(f *testing.F) {
	b := usual(512).disk(entry{rootAMD64, "r", 0, 40, 50}, entry{rootAMD64, "s", 0, 51, 60})
	f.Add(b[512:604], b[1024:1024+256])
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		disk := usual(512).disk()
		h := disk[512:]
		copy(h[:512], header)
		entries = entries[:min(len(entries), 8192)]
		copy(disk[1024:], entries)
		if n := uint64(le.Uint32(h[offEntryCount:])) * uint64(le.Uint32(h[offEntrySize:])); n <= 1<<20 {
			le.PutUint32(h[offEntriesCRC:], crc32.ChecksumIEEE(disk[1024:1024+n]))
		}
		le.PutUint32(h[offHeaderCRC:], 0)
		if n := le.Uint32(h[offHeaderSize:]); n <= 512 {
			le.PutUint32(h[offHeaderCRC:], crc32.ChecksumIEEE(h[:n]))
		}
		table, err := readImage(disk)
		if err != nil {
			if !errors.Is(err, ErrNoTable) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAmbiguous) {
				t.Error(err)
			}
			return
		}
		for _, p := range table.Partitions {
			if p.Start() < 1024 || p.Size() < 512 || p.Start()+p.Size() > int64(len(disk)) {
				t.Errorf("%+v: from %d, %d bytes", p, p.Start(), p.Size())
			}
		}
	})
}

// TestChecksumIsTheLibrarys for all lengths of one step and of a table.
func TestChecksumIsTheLibrarys(t *testing.T) {
	t.Parallel()
	b := make([]byte, 16<<10)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	for _, n := range []int{0, 1, 2, 15, 92, 512, len(b)} {
		if got, want := crc(b[:n]), crc32.ChecksumIEEE(b[:n]); got != want {
			t.Errorf("%d bytes: %08x, want %08x", n, got, want)
		}
	}
}
