package forecast

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/host"
	"luksmith/tokens/tpm2/bootrecord"
)

const boots = "../../tokens/tpm2/bootchain/testdata"

var update = flag.Bool("update", false, "write the files of testdata anew")

// forecast is what the machine of one boot would say once the files are those of
// another.
func forecast(t *testing.T, chain, was, is string, only ...int) *Forecast {
	t.Helper()
	list := boottest.Load(t, boots, chain)
	from := list[was]
	s := &bootchain.System{Machine: from.Machine(t, true), ESP: from.ESP(), PCRs: from.PCRs}
	b, err := s.Postdict()
	if err != nil {
		t.Fatal(err)
	}
	s.ESP = list[is].ESP()
	f, err := Of(s, bootchain.Recorded(b.Record()), only)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestForecastsOfRealBoots compares the text and the JSON with testdata.
func TestForecastsOfRealBoots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		chain, was, is string
		only           []int
	}{
		{"uki", "base", "base-again", nil}, {"uki", "base", "kernel", nil}, {"uki", "kernel", "sdboot252", nil}, {"uki262", "base", "initrd", []int{4, 7}},
		{"uki262fw", "base", "initrd", nil}, {"type1", "cmdline", "kernel", nil}, {"shim", "kernel", "shim", nil}, {"grub", "kernel", "grub206", nil}, {"grub", "initrd", "kernel", nil},
	} {
		f := forecast(t, c.chain, c.was, c.is, c.only...)
		text := strings.Join(f.Text(false), "\n") + "\n"
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(f.View()); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", c.chain+"-"+c.was+"-"+c.is)
		golden(t, file+".txt", text)
		if c.chain == "uki" {
			golden(t, file+".json", b.String())
		}
		for line := range strings.Lines(text) {
			if cli.Width(strings.TrimSuffix(line, "\n")) > columns {
				t.Errorf("%s: wider than %d columns: %s", file, columns, line)
			}
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
	}
}

func TestTitleOfTheNewestRecord(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i, title := range []string{"Debian 6.12.8", "Debian 6.12.9"} {
		b := &bootrecord.Boot{ID: fmt.Sprintf("0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a0%d", i), Time: time.Unix(int64(i), 0),
			Chain: &bootrecord.Chain{Entry: bootrecord.Entry{ID: "debian", Title: title, Path: "/a"}}}
		if err := bootrecord.State(root).Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if got := EntryTitle(root, "debian"); got != "Debian 6.12.9" || EntryTitle(root, "other") != "" {
		t.Errorf("%q", got)
	}
}

// TestFilesAreReadOnce: what follow asks for has the image of a further entry read once,
// and the image of the running boot twice: as a program, and by its sections.
func TestFilesAreReadOnce(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	root := t.TempDir()
	put := func(name string, content []byte) {
		if err := boottest.Write(filepath.Join(root, boottest.ESP, name), content); err != nil {
			t.Fatal(err)
		}
	}
	wantRead := func(what string, n, times int) {
		if n < times*size || n > (8*times+1)*size/8 {
			t.Errorf("%s: %d bytes were read, want %d times %d", what, n, times, size)
		}
	}
	install := func(i int) {
		put(fmt.Sprintf("EFI/Linux/entry%d.efi", i), petest.Image("257", petest.Kernel(boottest.Kernel), make([]byte, size), "quiet"))
	}
	put("EFI/BOOT/BOOTX64.EFI", petest.Loader("257"))
	install(1)
	if _, err := boottest.Start(boottest.Load(t, boots, "uki")["base"], root, "/EFI/Linux/entry1.efi"); err != nil {
		t.Fatal(err)
	}
	one := readForHook(t, root)
	wantRead("running image", one, 2)
	install(2)
	wantRead("another one", readForHook(t, root)-one, 1)

	// Kernels and initrds as files, of which two entries share one.
	root = t.TempDir()
	put("EFI/BOOT/BOOTX64.EFI", petest.Loader("257"))
	put("linux", petest.Kernel(boottest.Kernel))
	put("initrd", make([]byte, size))
	put("more", make([]byte, size))
	put("loader/entries/a.conf", []byte("linux /linux\ninitrd /initrd\noptions quiet\n"))
	put("loader/entries/b.conf", []byte("linux /linux\ninitrd /initrd\ninitrd /more\noptions quiet\n"))
	if _, err := boottest.Start(boottest.Load(t, boots, "uki")["base"], root, "/loader/entries/a.conf"); err != nil {
		t.Fatal(err)
	}
	wantRead("two initrds", readForHook(t, root), 2)
}

// readForHook is how many bytes are read for what follow asks for.
func readForHook(t *testing.T, root string) int {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := bytesRead(t)
	f, err := Read(Request{Host: host.Options{Root: root}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range f.Next {
		for _, pcr := range append(f.Next[i].Covering(), f.Next[i].Chosen()...) {
			f.Next[i].Of(pcr)
		}
	}
	return bytesRead(t) - before
}

// bytesRead is what this thread has read so far.
func bytesRead(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		testenv.NotApplicable(t, err.Error())
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
