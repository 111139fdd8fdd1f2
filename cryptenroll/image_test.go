package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/testenv"
)

// diskPart is a partition of a test's disk image.
type diskPart struct {
	volume string // file with its content
	name   string
	typ    gpt.Type
	flags  uint64
}

// partTypes are the words that tests use for types.
var partTypes = map[string]gpt.Type{
	"": gpt.LinuxRootX86_64, "root": gpt.LinuxRootX86_64, "home": gpt.LinuxHome, "srv": gpt.LinuxServerData, "data": gpt.LinuxFilesystem,
	"arm64": gpt.LinuxRootArm64, "usr": "8484680C-9521-48C6-9C11-B0720656F69E", "riscv": "72EC70A6-CF74-40E6-BD49-4BDA08E8F224",
}

// volumeSize is that of cmdVolume.
const volumeSize = 32 << 20

// makeDisk writes an image with go-diskfs. Partition N begins at N MiB plus those
// before it.
func makeDisk(path string, sector int, parts []diskPart) error {
	size := int64(len(parts)+1)*(volumeSize+1<<20) + 1<<20
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	table := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true}
	for i, p := range parts {
		start := diskStart(i + 1)
		table.Partitions = append(table.Partitions, &gpt.Partition{Index: i + 1, Start: uint64(start) / uint64(sector), Size: volumeSize,
			Type: p.typ, Name: p.name, Attributes: p.flags, GUID: fmt.Sprintf("AAAAAAAA-0000-4000-8000-%012d", i+1)})
		b, err := os.ReadFile(p.volume)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(b, start); err != nil {
			return err
		}
	}
	return table.Write(f, size)
}

func diskStart(number int) int64 { return int64(number)<<20 + int64(number-1)*volumeSize }

// cmdDisk makes a disk image: `disk FILE SECTOR VOLUME:NAME[:TYPE[:BIT]] …`.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: disk FILE SECTOR VOLUME:NAME[:TYPE[:BIT]]…")
	}
	sector, err := strconv.Atoi(args[1])
	ts.Check(err)
	var parts []diskPart
	for _, arg := range args[2:] {
		words := append(strings.Split(arg, ":"), "", "", "")
		p := diskPart{volume: ts.MkAbs(words[0]), name: words[1], typ: partTypes[words[2]]}
		if bit, err := strconv.Atoi(words[3]); err == nil {
			p.flags = 1 << bit
		}
		parts = append(parts, p)
	}
	ts.Check(makeDisk(ts.MkAbs(args[0]), sector, parts))
}

// cmdCut copies a partition of such an image out: `cut IMAGE NUMBER FILE`.
func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cut IMAGE NUMBER FILE")
	}
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	b := make([]byte, volumeSize)
	_, err = f.ReadAt(b, diskStart(number))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), b, 0o600))
}

// foreignImage is an image with two versions of a root partition, fooOS_9 and
// fooOS_10, that a program of somebody else made.
type foreignImage struct {
	name string
	make func(t *testing.T, dir string, old, newer string) (path string)
}

var foreignImages = []foreignImage{
	{"systemd-repart 252", func(t *testing.T, dir, old, newer string) string {
		testenv.Need(t, "systemd-repart")
		path := filepath.Join(dir, "disk.raw")
		defs := repartDefinitions(t, dir, old, newer)
		testenv.Run(t, "systemd-repart", "--empty=create", "--size=auto", "--dry-run=no", "--definitions="+defs, path)
		return path
	}},
	{"systemd-repart 257, sectors of 4096", func(t *testing.T, _, old, newer string) string {
		tree := testenv.Systemd257(t)
		tree.NeedProgram(t, "systemd-repart")
		for _, file := range []string{old, newer} {
			testenv.Run(t, "cp", "--sparse=always", file, tree.Dir())
		}
		in := tree.Inside(tree.Dir())
		repartDefinitions(t, tree.Dir(), filepath.Join(in, filepath.Base(old)), filepath.Join(in, filepath.Base(newer)))
		cmd := tree.CommandWithProc(nil, "systemd-repart", "--sector-size=4096", "--offline=yes", "--empty=create", "--size=128M", "--dry-run=no",
			"--definitions="+in+"/defs", in+"/disk.raw")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("systemd-repart: %v\n%s", err, out)
		}
		return filepath.Join(tree.Dir(), "disk.raw")
	}},
	{"sfdisk", func(t *testing.T, dir, old, newer string) string {
		testenv.Need(t, "sfdisk")
		script := "label: gpt\nsize=32MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=\"fooOS_10\"\nsize=32MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=\"fooOS_9\"\n"
		return partitioned(t, dir, script, []string{"sfdisk", "-q"}, 1<<20, newer, old)
	}},
	{"fdisk, sectors of 4096", func(t *testing.T, dir, old, newer string) string {
		testenv.Need(t, "fdisk")
		const root = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n"
		script := "g\nn\n1\n256\n+32M\nn\n7\n8448\n+32M\nt\n1\n" + root + "t\n7\n" + root + "x\nn\n1\nfooOS_9\nn\n7\nfooOS_10\nr\nw\n"
		return partitioned(t, dir, script, []string{"fdisk", "-b", "4096"}, 1<<20, old, newer)
	}},
}

// partitioned runs a program that makes two partitions, one behind the other, and
// copies the volumes into them.
func partitioned(t *testing.T, dir, script string, program []string, start int64, volumes ...string) string {
	t.Helper()
	path := filepath.Join(dir, "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(80 << 20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program[0], append(program[1:], path)...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program[0], err, out)
	}
	for i, volume := range volumes {
		if _, err := f.WriteAt(content(t, volume), start+int64(i)*volumeSize); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// repartDefinitions writes the definitions for repart below a folder.
func repartDefinitions(t *testing.T, dir, old, newer string) string {
	t.Helper()
	defs := filepath.Join(dir, "defs")
	if err := os.Mkdir(defs, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, volume := range []string{old, newer} {
		text := fmt.Sprintf("[Partition]\nType=root-x86-64\nLabel=fooOS_%d\nCopyBlocks=%s\n", 9+i, volume)
		if err := os.WriteFile(filepath.Join(defs, fmt.Sprintf("%d.conf", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return defs
}

// TestImagesOfOtherPrograms changes the newest root of images that others partitioned:
// cryptsetup agrees about the bytes, and nothing else in the image changes.
func TestImagesOfOtherPrograms(t *testing.T) {
	testenv.Need(t, "cryptsetup")
	for _, foreign := range foreignImages {
		t.Run(foreign.name, func(t *testing.T) {
			dir := t.TempDir()
			old, newer := filepath.Join(dir, "old"), filepath.Join(dir, "newer")
			testenv.Run(t, "truncate", "-s", "32M", old, newer)
			for _, path := range []string{old, newer} {
				cmd := exec.Command("cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", path, "-")
				cmd.Stdin = strings.NewReader("hunter2")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			image := foreign.make(t, dir, old, newer)
			before, volume := content(t, image), content(t, newer)
			at := bytes.Index(before, volume)
			if at < 0 {
				t.Fatal("the newer volume is not in the image")
			}
			call(t, "--image="+image, "--password", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--label=second")
			call(t, "label", "--image="+image, "0", "first")
			call(t, "--image="+image, "--wipe-slot=0", "--unlock-key-file="+fileWith(t, "correct horse"))
			after := content(t, image)
			if !bytes.Equal(before[:at], after[:at]) || !bytes.Equal(before[at+len(volume):], after[at+len(volume):]) {
				t.Error("something beside the newer volume was changed")
			}
			cut := fileWith(t, string(after[at:at+len(volume)]))
			if opens(t, cut, "hunter2") || !opens(t, cut, "correct horse") {
				t.Error("cryptsetup does not open the partition with the new passphrase alone")
			}
			testenv.Run(t, "cryptsetup", "luksDump", "--disable-locks", cut)
		})
	}
}

// call runs the command, which has to succeed.
func call(t *testing.T, args ...string) {
	t.Helper()
	r := runCommand(t, alone(t, []string{"PASSWORD=hunter2", "NEWPASSWORD=correct horse"}, args...))
	if r.status != 0 {
		t.Fatalf("%q: status %d\n%s", args, r.status, r.stderr)
	}
}

func fileWith(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
