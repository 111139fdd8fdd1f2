package probe

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// open unpacks a device of testdata.
func open(t testing.TB, name string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(testenv.Image(t, filepath.Join("testdata", name+".zst")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}

// TestReadOnlyFileSystems has superblocks made by hand, as blkid of util-linux reads them.
func TestReadOnlyFileSystems(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "blkid")
	uuid := []byte("\x11\x11\x11\x11\x22\x22\x43\x33\x84\x44\x55\x55\x55\x55\x55\x55")
	for name, tt := range map[string]struct {
		fill func(b []byte)
		want Identity
	}{
		"f2fs": {func(b []byte) {
			copy(b[1024:], "\x10\x20\xf5\xf2\x01\x00\x0e\x00")
			copy(b[1024+108:], uuid)
			copy(b[1024+124:], "k\x00e\x00y\x00")
		}, Identity{"f2fs", "11111111-2222-4333-8444-555555555555", "key"}},
		"erofs": {func(b []byte) {
			copy(b[1024:], "\xe2\xe1\xf5\xe0")
			b[1024+12] = 12
			copy(b[1024+48:], uuid)
			copy(b[1024+64:], "key")
		}, Identity{"erofs", "11111111-2222-4333-8444-555555555555", "key"}},
		"squashfs": {func(b []byte) {
			copy(b, "hsqs")
			b[28] = 4 // version
		}, Identity{Type: "squashfs"}},
	} {
		b := make([]byte, 4<<20)
		tt.fill(b)
		got, err := Superblock(bytes.NewReader(b), int64(len(b)))
		if err != nil || *got != tt.want {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		seen := testenv.Run(t, "blkid", "-p", "-o", "export", path)
		for key, value := range map[string]string{"TYPE": got.Type, "UUID": got.UUID, "LABEL": got.Label} {
			if value != "" && !strings.Contains(seen, "\n"+key+"="+value+"\n") {
				t.Errorf("%s: blkid says\n%s", name, seen)
			}
		}
	}
}

func TestSuperblock(t *testing.T) {
	t.Parallel()
	const u = "11111111-2222-4333-8444-5555555555"
	for _, tt := range []struct {
		file string
		want Identity
	}{
		{"ext4", Identity{"ext4", u + "55", "key stick"}},
		{"ext2", Identity{"ext4", u + "56", "ext2label"}}, // for blkid it is ext2
		{"xfs", Identity{"xfs", u + "57", "xfslabel"}},
		{"btrfs", Identity{"btrfs", u + "58", "btrfs label"}},
		{"luks1", Identity{LUKS, u + "59", ""}},
		{"luks2", Identity{LUKS, u + "5a", "luks label"}},
		{"luks2-second-copy", Identity{LUKS, u + "5a", "luks label"}},
		{"fat12", Identity{"vfat", "1234-ABCD", "KEYS12"}},
		{"fat16", Identity{"vfat", "2234-ABCD", "KEYS 16"}},
		{"fat32", Identity{"vfat", "3234-ABCD", "KEYS32"}},
		{"fat32-nolabel", Identity{"vfat", "4234-ABCD", ""}},
		{"fat32-4k", Identity{"vfat", "5234-ABCD", "KEYS4K"}},
		{"exfat", Identity{"exfat", "", "KEYS ex"}}, // with a random UUID
		{"ntfs", Identity{"ntfs", "2B44FC3C07414B97", ""}},
		{"iso9660", Identity{"iso9660", "2026-11-23-02-09-32-00", "KEYDISC"}},
		{"lvm", Identity{LVM, "abcdef-0123-4567-89ab-cdef-0123-456789", ""}},
		{"raid0.90", Identity{RAID, u + "58", ""}},
		{"raid1.0", Identity{RAID, u + "58", "(none):keys"}},
		{"raid1.1", Identity{RAID, u + "58", "(none):keys"}},
		{"raid1.2", Identity{RAID, u + "58", "(none):keys"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			f, size := open(t, tt.file)
			got, err := Superblock(f, size)
			if err != nil {
				t.Fatal(err)
			}
			if tt.file == "exfat" && len(got.UUID) == 9 {
				tt.want.UUID = got.UUID
			}
			if *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
		})
	}
}

// TestSuperblockEqualsBlkid asks the blkid of this machine about every device.
func TestSuperblockEqualsBlkid(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "blkid")
	files, err := filepath.Glob("testdata/*.zst")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".zst")
		if strings.HasPrefix(name, "gpt") || name == "mbr" || name == "ntfs" { // of which the most is cut off
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, size := open(t, name)
			got, err := Superblock(f, size)
			if err != nil {
				t.Fatal(err)
			}
			if got.Type == "ext4" && name == "ext2" {
				got.Type = name
			}
			want := map[string]string{"TYPE": got.Type, "UUID": got.UUID, "LABEL": got.Label}
			for tag, value := range want {
				if out := strings.TrimSuffix(testenv.Run(t, "blkid", "-p", "-s", tag, "-o", "value", f.Name()), "\n"); out != value {
					t.Errorf("%s is %q, blkid says %q", tag, value, out)
				}
			}
		})
	}
}

func TestNothingIsFound(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 1, 511, 512, 4096, 1 << 16, 1<<16 + 1, 1 << 23} {
		if id, err := Superblock(zeros{}, size); !errors.Is(err, ErrUnknown) {
			t.Errorf("%d zeros: %v, %v", size, id, err)
		}
	}
	broken := errors.New("medium error")
	if _, err := Superblock(failing{broken}, 1<<23); !errors.Is(err, broken) {
		t.Errorf("a device that cannot be read: %v", err)
	}
}

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) { clear(b); return len(b), nil }

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestFindPartition(t *testing.T) {
	t.Parallel()
	disks := map[string][]byte{}
	const second = "cccccccc-2222-4333-8444-555555555555"
	for _, tt := range []struct {
		file   string
		sector int
		number int
		start  int64
		want   *Partition
	}{
		{"gpt512", 512, 1, 1 << 20, &Partition{1, 1 << 20, "bbbbbbbb-2222-4333-8444-555555555555", "plain"}},
		{"gpt512", 512, 2, 2 << 20, &Partition{2, 2 << 20, second, "Schlüssel key"}},
		{"gpt512-backup", 512, 2, 2 << 20, &Partition{2, 2 << 20, second, "Schlüssel key"}},
		{"gpt4096", 4096, 2, 2 << 20, &Partition{2, 2 << 20, second, "Schlüssel key"}},
		{"gpt4096-backup", 4096, 2, 2 << 20, &Partition{2, 2 << 20, second, "Schlüssel key"}},
		{"mbr", 512, 1, 1 << 20, &Partition{1, 1 << 20, "deadbeef-01", ""}},
		{"mbr", 512, 5, 3 << 20, &Partition{5, 3 << 20, "deadbeef-05", ""}},
		{"mbr", 512, 12, 3 << 20, &Partition{12, 3 << 20, "deadbeef-0c", ""}},
		{"gpt512", 512, 3, 3 << 20, nil},         // not in use
		{"gpt512", 512, 2, 3 << 20, nil},         // begins elsewhere
		{"gpt512", 512, 1 << 30, 3 << 20, nil},   // beyond the table
		{"gpt512", 512, 0, 1 << 20, nil},         // no number
		{"gpt4096", 512, 2, 2 << 20, nil},        // as a disk with other sectors
		{"gpt512", 1 << 20, 2, 2 << 20, nil},     // as no disk has them
		{"ext4", 512, 1, 1 << 20, nil},           // no table
		{"gpt4096", 4096, 2, 2<<20 + 1000, nil},  // not at a sector
		{"gpt4096-backup", 512, 2, 2 << 20, nil}, // no table for these sectors
	} {
		if disks[tt.file] == nil {
			f, _ := open(t, tt.file)
			b, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			disks[tt.file] = b
		}
		disk := disks[tt.file]
		got, err := FindPartition(bytes.NewReader(disk), int64(len(disk)), tt.sector, tt.number, tt.start)
		if tt.want == nil {
			if !errors.Is(err, ErrNoTable) {
				t.Errorf("%s: %+v, %v; want %v", tt.file, got, err, ErrNoTable)
			}
			continue
		}
		if err != nil || *got != *tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.file, got, err, *tt.want)
		}
	}
}

func TestDamagedGPTIsNotBelieved(t *testing.T) {
	t.Parallel()
	f, size := open(t, "gpt512-backup") // so that only one header is left
	whole := make([]byte, size)
	if _, err := io.ReadFull(f, whole); err != nil {
		t.Fatal(err)
	}
	header := int(size) - 512
	entries := int(le.Uint64(whole[header+72:])) * 512
	for name, at := range map[string]int{
		"magic": header, "header size": header + 12, "checksum": header + 16, "own place": header + 24, "place of the entries": header + 72,
		"number": header + 80, "size": header + 84, "checksum of the entries": header + 88, "entry": entries + 130,
	} {
		whole[at] ^= 0x40
		if p, err := FindPartition(strings.NewReader(string(whole)), size, 512, 2, 2<<20); !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		whole[at] ^= 0x40
	}
}

// repeated is a device on which the fuzzer's bytes come again and again, so that
// they are at every place where a superblock may be.
type repeated []byte

func (r repeated) ReadAt(b []byte, off int64) (int, error) {
	for i := range b {
		b[i] = r[(off+int64(i))%int64(len(r))]
	}
	return len(b), nil
}

func FuzzSuperblock(f *testing.F) {
	for name, at := range map[string]int64{
		"ext4": 1024, "fat16": 0, "fat32": 0, "exfat": 0, "xfs": 0, "ntfs": 0, "luks1": 0, "luks2": 0, "luks2-second-copy": 0x4000, "lvm": 512,
		"iso9660": 32 << 10, "btrfs": 64 << 10, "raid1.1": 0, "raid1.2": 4096, "raid0.90": 8<<20 - 0x10000,
	} {
		in, _ := open(f, name)
		piece := make([]byte, 2048)
		if _, err := in.ReadAt(piece, at); err != nil {
			f.Fatal(err)
		}
		seed := make([]byte, 4100)
		for i, c := range piece {
			seed[(at+int64(i))%int64(len(seed))] = c
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		id, err := Superblock(repeated(b), 8<<20)
		if (id == nil) == (err == nil) || err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("%v, %v", id, err)
		}
	})
}

// FuzzFindPartition makes the checksums of what the fuzzer gives right, or none
// of its tables would get any further.
func FuzzFindPartition(f *testing.F) {
	in, _ := open(f, "gpt512")
	b := make([]byte, 2048)
	if _, err := in.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	le.PutUint32(b[512+80:], 8) // entries, rather than 128
	f.Add(b[512:604], b[1024:], 2, int64(2<<20))
	f.Add(b[512:604], b[1024:], 8, int64(0))
	f.Fuzz(func(t *testing.T, header, entries []byte, number int, start int64) {
		disk := make([]byte, 1024, 1024+len(entries))
		disk[510], disk[511], disk[450] = 0x55, 0xaa, 0xee
		h := disk[512:]
		copy(h, header)
		disk = append(disk, entries...)
		if n := le.Uint32(h[80:]) * le.Uint32(h[84:]); int(n) <= len(entries) {
			le.PutUint32(h[88:], crc32.ChecksumIEEE(entries[:n]))
		}
		le.PutUint32(h[16:], 0)
		if n := le.Uint32(h[12:]); n <= 512 {
			le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
		}
		p, err := FindPartition(bytes.NewReader(disk), int64(len(disk)), 512, number, start)
		if err == nil && (p.Start != start || p.Number != number) || err != nil && !errors.Is(err, ErrNoTable) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}
