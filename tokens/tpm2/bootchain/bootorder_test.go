package bootchain

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// TestAnotherBootOptionThisOnce: nothing is predicted for a boot that begins with another
// loader than this one, which the log does not know.
func TestAnotherBootOptionThisOnce(t *testing.T) {
	t.Parallel()
	f := loadChain(t, "uki")["base"]
	const other = "/EFI/other/loader.efi"
	here, elsewhere := startedPath(t, f.Events, other), startedPath(t, f.Events, other)
	hd := bytes.Index(elsewhere, []byte{4, 1, 42, 0})
	elsewhere[hd+24]++ // another partition
	for name, c := range map[string]struct {
		option  []byte
		active  byte
		order   []byte
		file    []byte
		unknown bool
	}{
		"before the one that was started": {here, 1, []byte{9, 0, 1, 0}, petest.Loader("252"), true},
		"the started one is not in order": {here, 1, []byte{9, 0}, petest.Loader("252"), true},
		"behind it":                       {here, 1, []byte{1, 0, 9, 0}, petest.Loader("252"), false},
		"not active":                      {here, 0, []byte{9, 0, 1, 0}, petest.Loader("252"), false},
		"on another disk":                 {elsewhere, 1, []byte{9, 0, 1, 0}, petest.Loader("252"), false},
		"without its file":                {here, 1, []byte{9, 0, 1, 0}, nil, false},
		"Windows":                         {here, 1, []byte{9, 0, 1, 0}, petest.Build(petest.Section{Name: ".text", Data: []byte("x")}), false},
		"nonsense":                        {here[:7], 1, []byte{9, 0, 1, 0}, petest.Loader("252"), false},
	} {
		s := system(t, f, false)
		b, err := s.Postdict()
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{}
		if c.file != nil {
			files[other] = c.file
		}
		s.ESP = besides(t, s.ESP, files)
		vars := f.Variables(nil)
		vars["BootCurrent-"+efi.Global] = boottest.Variable([]byte{1, 0})
		vars["BootOrder-"+efi.Global] = boottest.Variable(c.order)
		option := binary.LittleEndian.AppendUint16([]byte{c.active, 0, 0, 0}, uint16(len(c.option)))
		vars["Boot0009-"+efi.Global] = boottest.Variable(append(append(option, efi.UTF16("Other\x00")...), c.option...))
		s.Machine.Variables = efi.Variables{FS: vars}
		p, err := s.Predict(b, b.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if v := p.Of(11); (v.Grade == Unknown && strings.Contains(v.Reason, "the next boot starts "+other+" (Boot0009)")) != c.unknown {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// startedPath is the device path of the first program of a boot, with another file.
func startedPath(t *testing.T, events []eventlog.Event, file string) []byte {
	t.Helper()
	for _, e := range events {
		if e.PCR != 4 || e.ImagePath() == "" {
			continue
		}
		at := 32
		for e.Data[at] != 4 || e.Data[at+1] != 4 { // up to the file's node
			at += int(binary.LittleEndian.Uint16(e.Data[at+2:]))
		}
		name := efi.UTF16(strings.ReplaceAll(file, "/", `\`) + "\x00")
		path := append(bytes.Clone(e.Data[32:at]), 4, 4)
		path = append(binary.LittleEndian.AppendUint16(path, uint16(4+len(name))), name...)
		return append(path, 0x7f, 0xff, 4, 0)
	}
	t.Fatal("the log names no program")
	return nil
}
