// Package efi reads what the firmware tells the running system: its variables,
// boot options among them, and the tables of SMBIOS.
package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"unicode/utf16"
)

// GUIDs of the variables that are looked at (UEFI 2.10 §3.3, §32.6.1; shim).
const (
	Global   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	Security = "d719b2cb-3d3a-4596-a3bc-dad00e67656f" // db, dbx
	Shim     = "605dab50-e046-4300-abb6-3dd810dd8b23"
	Loader   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f" // systemd-boot's, systemd BOOT_LOADER_INTERFACE
)

// maxVariable bounds what is read of a variable. dbx, the largest, has 20 kB.
const maxVariable = 1 << 20

// Variables are a folder like /sys/firmware/efi/efivars.
type Variables struct{ FS fs.FS }

// Get returns the content of a variable, without the attributes that efivarfs puts
// in front. It is fs.ErrNotExist when there is none.
func (v Variables) Get(name, guid string) ([]byte, error) {
	if v.FS == nil {
		return nil, fs.ErrNotExist
	}
	file := path.Clean(name) + "-" + guid
	info, err := fs.Stat(v.FS, file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxVariable {
		return nil, fmt.Errorf("variable %s has %d bytes", name, info.Size())
	}
	b, err := fs.ReadFile(v.FS, file)
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("variable %s is cut short", name)
	}
	return b[4:], nil
}

// Has reports whether there is a variable.
func (v Variables) Has(name, guid string) bool {
	_, err := v.Get(name, guid)
	return err == nil
}

// ErrLoadOption: the content of a Boot#### variable cannot be read.
var ErrLoadOption = errors.New("boot option that cannot be read")

// LoadOption is EFI_LOAD_OPTION (UEFI 2.10 §3.1.3), as far as it is needed.
type LoadOption struct {
	Active      bool // the firmware tries it
	Description string
	Path        []byte // device path of the program
	Data        []byte // optional data: the arguments of the program
}

// ParseLoadOption reads the content of a Boot#### variable.
func ParseLoadOption(b []byte) (o LoadOption, err error) {
	if len(b) < 6 {
		return o, ErrLoadOption
	}
	paths, rest := int(binary.LittleEndian.Uint16(b[4:])), b[6:]
	text, rest, ok := cutUTF16(rest)
	if !ok || paths > len(rest) {
		return o, ErrLoadOption
	}
	const active = 1
	return LoadOption{binary.LittleEndian.Uint32(b)&active != 0, text, rest[:paths], rest[paths:]}, nil
}

// cutUTF16 takes a string that ends with NUL off b.
func cutUTF16(b []byte) (text string, rest []byte, ok bool) {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			return string(utf16.Decode(units)), b[2:], true
		}
		units = append(units, u)
	}
	return "", nil, false
}

// UTF16 is a text as firmware has it: little-endian, with or without NUL.
func UTF16(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// Order reads BootOrder: numbers of Boot#### variables.
func Order(b []byte) []uint16 {
	var list []uint16
	for ; len(b) >= 2; b = b[2:] {
		list = append(list, binary.LittleEndian.Uint16(b))
	}
	return list
}
