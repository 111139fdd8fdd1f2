package efi

import (
	"bytes"
	"errors"
)

// Types of SMBIOS structures (DMTF DSP0134 §6.2, §7).
const (
	SMBIOSSystem     = 1
	SMBIOSBaseboard  = 2
	SMBIOSOEMStrings = 11
	smbiosEnd        = 127

	offsetWakeUp = 0x18 // Wake-up Type of type 1
)

// MaxSMBIOS bounds the tables.
const MaxSMBIOS = 1 << 20

// ErrSMBIOS: the tables are damaged.
var ErrSMBIOS = errors.New("SMBIOS tables that cannot be read")

// Structure is one SMBIOS structure with its strings and both zeros at the end.
type Structure struct {
	Type byte
	Data []byte
}

// ParseSMBIOS splits the tables of /sys/firmware/dmi/tables/DMI.
func ParseSMBIOS(b []byte) ([]Structure, error) {
	if len(b) > MaxSMBIOS {
		return nil, ErrSMBIOS
	}
	var list []Structure
	for len(b) >= 4 {
		size := int(b[1])
		if size < 4 || size > len(b) {
			return nil, ErrSMBIOS
		}
		strings := bytes.Index(b[size:], []byte{0, 0})
		if strings < 0 {
			return nil, ErrSMBIOS
		}
		end := size + strings + 2
		list = append(list, Structure{b[0], b[:end:end]})
		if b[0] == smbiosEnd {
			return list, nil
		}
		b = b[end:]
	}
	return list, nil
}

// Measured is the structure as systemd-boot and systemd-stub measure it since
// version 261: Wake-up Type is zero, since it says how the machine was switched on
// (systemd 262, seen in 4 machines' logs).
func (s Structure) Measured() []byte {
	b := bytes.Clone(s.Data)
	if s.Type == SMBIOSSystem && len(b) > 4 && int(b[1]) > offsetWakeUp && len(b) > offsetWakeUp {
		b[offsetWakeUp] = 0
	}
	return b
}

// Strings are the strings of a structure.
func (s Structure) Strings() []string {
	var list []string
	if len(s.Data) < 4 || int(s.Data[1]) > len(s.Data) {
		return nil
	}
	for part := range bytes.SplitSeq(s.Data[s.Data[1]:], []byte{0}) {
		if len(part) > 0 {
			list = append(list, string(part))
		}
	}
	return list
}
