package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	diskfs "github.com/diskfs/go-diskfs/partition/gpt"
	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/gpt"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/dmcrypt"
)

func TestKernelCommandLineLeavesRolesToDiscovery(t *testing.T) {
	t.Parallel()
	const all = "root usr home srv var swap"
	for text, want := range map[string]string{
		"":                                     all,
		"quiet rw root= mount.usr":             all,
		"root=gpt-auto":                        all,
		"root=gpt-auto-force":                  all,
		"root=dissect mount.usr=dissect":       all,
		"root=/dev/mapper/root":                all,
		"root=/dev/sda2":                       "usr home srv var swap",
		"root=UUID=1 root=gpt-auto":            all,
		"root=gpt-auto root=UUID=1":            "usr home srv var swap",
		"root=/dev/mapper/home":                "usr home srv var swap",
		"roothash=aa":                          "usr home srv var swap",
		"usrhash=aa mount.usr=/dev/mapper/usr": "root home srv var swap",
		"mount.usr=/dev/sda3":                  "root home srv var swap",
		"systemd.swap=no":                      "root usr home srv var",
		"systemd.swap=no systemd.swap":         all,
		"systemd.gpt_auto=no":                  "",
		"systemd.gpt_auto=0 systemd.gpt_auto":  all,
		"systemd.gpt_auto=perhaps":             all,
		"rd.systemd.gpt_auto=off":              "",
		"rd.root=/dev/sda2":                    all,
	} {
		var words []string
		for _, r := range discoveredRoles(text, true) {
			words = append(words, string(r))
		}
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if len(discoveredRoles("rd.systemd.gpt_auto=off", false)) != len(discoverable) {
		t.Error("rd. counts outside of an initrd")
	}
}

const (
	loaderUUID = "eeeeeeee-0000-4000-8000-000000000001"
	homeType   = "933ac7e1-2eb4-4f13-b844-0e14e2aef915"
	varType    = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
	swapType   = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
)

// rootType is that of this architecture.
func rootType(t *testing.T) string {
	t.Helper()
	types := map[string]string{"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae"}
	if types[gpt.Native] == "" {
		testenv.NotApplicable(t, "no type of this architecture in the test")
	}
	return types[gpt.Native]
}

// partition is an entry of a made disk, of one MiB or of the volume's size.
type partition struct {
	typ, name, uuid string
	flags           gpt.Flags
	volume          *luks2test.Volume
}

// partitionSize is that of a made partition: a LUKS2 header and a MiB of data.
const partitionSize = 17 << 20

// madeDisk writes a disk with a partition table for sectors of a size.
func madeDisk(t *testing.T, sector int, list ...partition) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	size := int64(len(list)*partitionSize + 2<<20)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	table := &diskfs.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true}
	for i, p := range list {
		start := int64(1<<20 + i*partitionSize)
		table.Partitions = append(table.Partitions, &diskfs.Partition{Index: i + 1, Start: uint64(start) / uint64(sector), Size: partitionSize,
			Type: diskfs.Type(strings.ToUpper(p.typ)), GUID: strings.ToUpper(p.uuid), Name: p.name, Attributes: uint64(p.flags)})
		if p.volume != nil {
			copyHeader(t, f, start, p.volume.Path)
		}
	}
	if err := table.Write(f, size); err != nil {
		t.Fatal(err)
	}
	return f
}

// copyHeader copies what is not zero of the beginning of a volume.
func copyHeader(t *testing.T, disk *os.File, at int64, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, piece := range slices.Collect(slices.Chunk(b[:partitionSize], 4096)) {
		if strings.Trim(string(piece), "\x00") == "" {
			continue
		}
		if _, err := disk.WriteAt(piece, at+int64(i)*4096); err != nil {
			t.Fatal(err)
		}
	}
}

// tabled is a made disk as the program knows it.
func tabled(t *testing.T, node string, sector int, list ...partition) *tabledDisk {
	t.Helper()
	f := madeDisk(t, sector, list...)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, info.Size(), int64(sector))
	if err != nil || table.Check(info.Size()) != nil {
		t.Fatal(err)
	}
	return &tabledDisk{&blockDevice{name: node, node: "/dev/" + node, folder: "/sys/" + node, size: info.Size()}, table}
}

func TestNewestVersionOfTheBootDiskIsMeant(t *testing.T) {
	t.Parallel()
	root := rootType(t)
	for _, sector := range []int{512, 4096} {
		disk := tabled(t, "vda", sector,
			partition{typ: espType, uuid: loaderUUID},
			partition{typ: root, name: "os_1.9", uuid: "aaaaaaaa-0000-4000-8000-000000000001"},
			partition{typ: root, name: "os_1.10", uuid: "aaaaaaaa-0000-4000-8000-000000000002", flags: gpt.ReadOnly},
			partition{typ: root, name: "os_2", flags: gpt.NoAuto},
			partition{typ: root, name: "_empty"},
			partition{typ: homeType, name: "z"}, partition{typ: homeType, name: "zz"},
			partition{typ: swapType, flags: gpt.ReadOnly})
		d := &discovery{loader: loaderUUID, measured: true}
		if got, err := d.bootDisk([]*tabledDisk{disk}); got != disk || err != nil {
			t.Fatalf("%v, %v", got, err)
		}
		for role, want := range map[gpt.Role]int{gpt.Root: 3, gpt.Home: 6, gpt.Swap: 8, gpt.Usr: 0, gpt.Srv: 0, gpt.Var: 0} {
			if p := d.partitionFor(role, disk.table); (p == nil) != (want == 0) || p != nil && p.Number != want {
				t.Errorf("sectors of %d: %s is %+v, want number %d", sector, role, p, want)
			}
		}
		for role, want := range map[gpt.Role]string{gpt.Root: "read-only,tpm2-measure-pcr=yes", gpt.Home: "nofail", gpt.Swap: "nofail"} {
			p := d.partitionFor(role, disk.table)
			e := d.entry(role, p, disk, &blockDevice{node: fmt.Sprintf("/dev/vda%d", p.Number)})
			j, _, err := newJob(e, newGrammar())
			if err != nil || e.Options != want || e.Name != string(role) || j.entry.Source.Value != fmt.Sprintf("/dev/vda%d", p.Number) {
				t.Errorf("%+v, %v", e, err)
			}
		}
	}
}

func TestBootDiskIsNeverGuessed(t *testing.T) {
	t.Parallel()
	esp, root := partition{typ: espType, uuid: loaderUUID}, partition{typ: rootType(t)}
	otherESP := partition{typ: espType, uuid: "eeeeeeee-0000-4000-8000-000000000002"}
	disguised := partition{typ: homeType, uuid: loaderUUID}
	for _, c := range []struct {
		name, loader string
		disks        [][]partition
		want         string // node, or part of the error
	}{
		{"that of the loader", loaderUUID, [][]partition{{otherESP, root}, {esp, root}}, "/dev/vdb"},
		{"two with the loader", loaderUUID, [][]partition{{esp, root}, {esp, root}}, "more than one device: /dev/vda, /dev/vdb"},
		{"loader elsewhere", loaderUUID, [][]partition{{otherESP, root}}, loaderUUID},
		{"no boot partition", loaderUUID, [][]partition{{disguised, root}}, loaderUUID},
		{"unknown loader, one disk", "", [][]partition{{esp}, {root}}, "/dev/vdb"},
		{"unknown loader, two disks", "", [][]partition{{esp, root}, {root}}, "more than one device"},
		{"unknown loader, none", "", [][]partition{{esp}}, "a partition for root or usr"},
	} {
		var disks []*tabledDisk
		for i, list := range c.disks {
			disks = append(disks, tabled(t, "vd"+string(rune('a'+i)), 512, list...))
		}
		got, err := (&discovery{loader: c.loader}).bootDisk(disks)
		switch {
		case err == nil && got.device.node != c.want:
			t.Errorf("%s: %s", c.name, got.device.node)
		case err != nil && (!errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestForeignVarIsLeftAlone: the UUID is the HMAC of the type, keyed by the machine ID.
// Both were computed with Python's hmac.
func TestForeignVarIsLeftAlone(t *testing.T) {
	t.Parallel()
	const machine = "0123456789abcdef0123456789abcdef"
	for uuid, own := range map[string]bool{
		"c0c46eff-e386-1746-62bd-0962cd326ea2": true, "c0c46eff-e386-4746-a2bd-0962cd326ea2": true, "aaaaaaaa-0000-4000-8000-000000000001": false,
	} {
		disk := tabled(t, "vda", 512, partition{typ: varType, uuid: "aaaaaaaa-0000-4000-8000-000000000009"}, partition{typ: varType, uuid: uuid})
		p := (&discovery{machineID: machine}).partitionFor(gpt.Var, disk.table)
		if (p != nil) != own || p != nil && p.Number != 2 {
			t.Errorf("%s: %+v", uuid, p)
		}
		for _, id := range []string{"", "uninitialized", "ffffffffffffffffffffffffffffffff", machine + "00"} {
			if p := (&discovery{machineID: id}).partitionFor(gpt.Var, disk.table); p != nil {
				t.Errorf("machine %q: %+v", id, p)
			}
		}
	}
}

func TestPartitionIsTheKernelsOne(t *testing.T) {
	t.Parallel()
	disk := tabled(t, "vda", 4096, partition{typ: espType}, partition{typ: homeType})
	root := t.TempDir()
	disk.device.folder = filepath.Join(root, "vda")
	device := func(name, number, start string, size int64) *blockDevice {
		d := &blockDevice{name: name, folder: filepath.Join(disk.device.folder, name), size: size}
		if err := os.MkdirAll(d.folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(d.folder, "partition"), []byte(number+"\n"), 0o600)
		write(t, filepath.Join(d.folder, "start"), []byte(start+"\n"), 0o600)
		return d
	}
	start := fmt.Sprint((1<<20 + partitionSize) / 512)
	right := device("vda2", "2", start, partitionSize)
	others := []*blockDevice{disk.device, device("vda1", "1", "2048", partitionSize), device("a", "2", "2048", partitionSize), device("b", "2", start, 4096)}
	if got := disk.partition(append(others, right), &disk.table.Partitions[1]); got != right {
		t.Errorf("%+v", got)
	}
	if got := disk.partition(others, &disk.table.Partitions[1]); got != nil {
		t.Errorf("another one is taken: %+v", got)
	}
}

func TestNamedVolumesAreNotDiscovered(t *testing.T) {
	t.Parallel()
	device := &blockDevice{node: "/dev/null", folder: "/nonexistent"}
	for text, want := range map[string]bool{"root /dev/x": true, "x /dev/null": true, "x /dev/zero": false, "home UUID=1": false} {
		e := entryOf(t, text)
		if named([]crypttab.Entry{e}, gpt.Root, device) != want {
			t.Errorf("%q", text)
		}
	}
}

func entryOf(t *testing.T, line string) crypttab.Entry {
	t.Helper()
	name, source, _ := strings.Cut(line, " ")
	return crypttab.Entry{Name: name, Source: crypttab.ParseDeviceRef(source)}
}

func TestEFIVariables(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if got := b.efiVariable("LoaderDevicePartUUID"); got != "" {
		t.Errorf("no EFI: %q", got)
	}
	for value, want := range map[string]string{"\x06\x00\x00\x00A\x00b\x00\x00\x00": "Ab", "\x06\x00\x00": "", "": "", "\x06\x00\x00\x00" + strings.Repeat("x\x00", 5000): strings.Repeat("x", 510)} {
		b.file(t, "sys/firmware/efi/efivars/LoaderDevicePartUUID-"+loaderVendor, value)
		if got := b.efiVariable("LoaderDevicePartUUID"); got != want {
			t.Errorf("%q: %q", value, got)
		}
	}
}

// loopOf makes a disk of an image, with its partitions, until the end of the test.
func loopOf(t *testing.T, image *os.File, sector uint32) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Size: sector, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_PARTSCAN}}
	if err := unix.IoctlLoopConfigure(int(disk.Fd()), &config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := unix.IoctlRetInt(int(disk.Fd()), unix.LOOP_CLR_FD); err != nil {
			t.Error(err)
		}
		_ = disk.Close()
	})
	return disk.Name()
}

// TestGuestDiscoveredRootIsAttached boots as an image of a system does, with two versions
// and neither crypttab nor root=.
func TestGuestDiscoveredRootIsAttached(t *testing.T) {
	testenv.NeedGuest(t)
	testenv.Run(t, "modprobe", "loop")
	root := rootType(t)
	older, newer, home := newVolume(t), newVolume(t), newVolume(t)
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			image := madeDisk(t, sector, partition{typ: espType, uuid: loaderUUID}, partition{typ: root, name: "os_10", volume: newer}, partition{typ: root, name: "os_9", volume: older},
				partition{typ: root, name: "os_11", flags: gpt.NoAuto}, partition{typ: homeType, flags: gpt.ReadOnly, volume: home})
			disk := loopOf(t, image, uint32(sector))
			t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
			for _, name := range []string{"root", "home"} {
				path := "/run/cryptsetup-keys.d/" + name + ".key"
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, path, []byte(rightKey), 0o600)
				defer os.Remove(path)
			}
			out, errOut, status := command(t, "cryptsetup-unit", "attach-all", "--initrd", "--discover")
			if status != 0 {
				t.Fatalf("status %d\n%s%s", status, out, errOut)
			}
			for name, want := range map[string]*luks2test.Volume{"root": newer, "home": home} {
				info, err := dmcrypt.Status(name)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				r, err := readReport("", name)
				if err != nil || r.UUID != want.UUID || !strings.HasPrefix(r.Device, disk+"p") {
					t.Errorf("%s: %+v, %v; %+v", name, r, err, info)
				}
				if ro := strings.TrimSpace(testenv.Run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "readonly", name)); (ro == "Read-only") != (name == "home") {
					t.Errorf("%s is %q", name, ro)
				}
			}
			for _, name := range []string{"root", "home"} {
				if _, errOut, status := command(t, "cryptsetup-unit", "detach", name); status != 0 {
					t.Error(errOut)
				}
			}
			t.Run("copy", func(t *testing.T) {
				_ = loopOf(t, image, uint32(sector))
				_, errOut, status := command(t, "cryptsetup-unit", "attach-all", "--initrd", "--discover", "--limit=1s")
				if _, err := dmcrypt.Status("root"); status == 0 || !strings.Contains(errOut, "more than one device") || !errors.Is(err, dmcrypt.ErrNotActive) {
					t.Errorf("status %d, %v\n%s", status, err, errOut)
				}
			})
		})
	}
}
