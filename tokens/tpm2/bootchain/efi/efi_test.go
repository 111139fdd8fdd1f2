package efi

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestVariablesAreReadWithoutTheirAttributes(t *testing.T) {
	t.Parallel()
	v := Variables{FS: fstest.MapFS{"dbx-" + Security: {Data: []byte("\x27\x00\x00\x00list")}, "Short-" + Global: {Data: []byte("\x07")}}}
	if b, err := v.Get("dbx", Security); err != nil || string(b) != "list" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := v.Get("Short", Global); err == nil {
		t.Error("a variable without attributes was read")
	}
	if _, err := v.Get("None", Global); !errors.Is(err, fs.ErrNotExist) || v.Has("None", Global) {
		t.Error(err)
	}
	if _, err := (Variables{}).Get("dbx", Security); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func option(data string) []byte {
	b := append([]byte{1, 0, 0, 0, 4, 0}, UTF16("Linux\x00")...)
	return append(append(b, 0x7f, 0xff, 4, 0), data...)
}

func TestArgumentsOfBootOptions(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "quiet"} {
		if o, err := ParseLoadOption(option(data)); err != nil || string(o.Data) != data || o.Description != "Linux" || !o.Active || len(o.Path) == 0 {
			t.Errorf("%+v, %v", o, err)
		}
	}
	for n := range len(option("")) {
		if _, err := ParseLoadOption(option("")[:n]); !errors.Is(err, ErrLoadOption) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// table is a structure with strings.
func table(kind byte, formatted int, strings string) []byte {
	b := make([]byte, formatted)
	b[0], b[1] = kind, byte(formatted)
	return append(append(b, strings...), 0, 0)
}

func TestWakeUpTypeIsNotMeasured(t *testing.T) {
	t.Parallel()
	first, second := table(SMBIOSSystem, 0x1b, "QEMU"), table(SMBIOSSystem, 0x1b, "QEMU")
	first[0x18], second[0x18] = 6, 8 // switched on, restarted
	a, err := ParseSMBIOS(append(append(first, table(SMBIOSOEMStrings, 5, "one\x00two")...), table(smbiosEnd, 4, "")...))
	if err != nil || len(a) != 3 || len(a[1].Strings()) != 2 || a[1].Strings()[1] != "two" {
		t.Fatalf("%v, %v", a, err)
	}
	b, _ := ParseSMBIOS(second)
	if !bytes.Equal(a[0].Measured(), b[0].Measured()) || a[0].Data[0x18] != 6 {
		t.Error("structures that differ in the wake-up type are measured differently")
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(table(SMBIOSOEMStrings, 5, "a\x00b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := ParseSMBIOS(b)
		for _, s := range list {
			s.Measured()
			s.Strings()
		}
	})
}

func FuzzLoadOption(f *testing.F) {
	f.Add(option("x"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseLoadOption(b) })
}
