package forecast

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/test/boottest"
	"luksmith/tokens/tpm2/bootchain"
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
