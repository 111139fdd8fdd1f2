package bootchain

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/bootchain/esp"
	"luksmith/tokens/tpm2/eventlog"
)

// beside are files beside those of a fixture.
type beside struct {
	chain.Files
	more *esp.Disk
}

func (b beside) Open(name string) (chain.File, error) {
	if f, err := b.more.Open(name); err == nil {
		return f, nil
	}
	return b.Files.Open(name)
}

func (b beside) List(folder string) ([]string, error) {
	list, err := b.more.List(folder)
	others, err2 := b.Files.List(folder)
	return append(list, others...), errors.Join(err, err2)
}

func besides(t *testing.T, files chain.Files, more map[string][]byte) chain.Files {
	t.Helper()
	dir := t.TempDir()
	for name, content := range more {
		if err := boottest.Write(filepath.Join(dir, name), content); err != nil {
			t.Fatal(err)
		}
	}
	disk, err := esp.Open(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	return beside{files, disk}
}

// TestWhatSystemdBootDoesBeforeItLooksAtEntries: drivers it starts, keys it enrols.
func TestWhatSystemdBootDoesBeforeItLooksAtEntries(t *testing.T) {
	t.Parallel()
	const file = "EFI/systemd/drivers/ext4x64.efi"
	driver := petest.Loader("driver")
	one, other := map[string][]byte{file: driver}, map[string][]byte{file: petest.Loader("another")}
	keys := map[string][]byte{"loader/keys/auto/db.auth": nil}
	afterLoader := []int{4, 5, 7, 8, 9, 11, 12, 13, 14}
	for name, c := range map[string]struct {
		files   map[string][]byte
		started bool // the driver, in this boot
		setup   byte
		want    []int
	}{
		"no driver":              {nil, false, 0, nil},
		"the driver of before":   {one, true, 0, nil},
		"a driver came":          {one, false, 0, []int{2, 4, 7}},
		"a driver changed":       {other, true, 0, []int{2, 4, 7}},
		"a driver went":          {nil, true, 0, []int{2, 4, 7}},
		"half a driver":          {map[string][]byte{file: driver[:100]}, true, 0, []int{2, 4, 7}},
		"files that are none":    {map[string][]byte{"EFI/systemd/drivers/.ext4x64.efi": nil, "EFI/systemd/drivers/ext4aa64.efi": nil}, false, 0, nil},
		"keys":                   {keys, false, 0, nil},
		"keys in setup mode":     {keys, false, 1, afterLoader},
		"setup mode, and no key": {nil, false, 1, nil},
	} {
		f := loadChain(t, "uki")["base"]
		s := system(t, f, false)
		delete(s.PCRs, 2)
		s.ESP = besides(t, s.ESP, c.files)
		if c.started {
			s.Machine.Events = append(slices.Clone(s.Machine.Events), driverEvent(t, driver))
		}
		vars := f.Variables(nil)
		vars["SetupMode-"+efi.Global] = boottest.Variable([]byte{c.setup})
		s.Machine.Variables = efi.Variables{FS: vars}
		b, err := s.Postdict()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Predict(b, b.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if got := unknownPCRs(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: unknown are %v, want %v", name, got, c.want)
		}
	}
}

// driverEvent is what EDK II measures of a driver.
func driverEvent(t *testing.T, content []byte) eventlog.Event {
	t.Helper()
	name := filepath.Join(t.TempDir(), "driver")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, err := esp.Open(filepath.Dir(name), false)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	f, err := disk.Open("driver")
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Program()
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Authenticode()
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.Event{PCR: 2, Type: eventlog.TypeDriver, Digests: map[string][]byte{chain.Bank: d[:]}}
}
