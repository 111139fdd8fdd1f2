package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

// typeNames are those of TCG PC Client Platform Firmware Profile 1.06 §10.4.1.
var typeNames = [...]struct {
	typ  uint32
	name string
}{
	{0x0, "EV_PREBOOT_CERT"}, {0x1, "EV_POST_CODE"}, {0x3, "EV_NO_ACTION"}, {0x4, "EV_SEPARATOR"}, {0x5, "EV_ACTION"}, {0x6, "EV_EVENT_TAG"},
	{0x7, "EV_S_CRTM_CONTENTS"}, {0x8, "EV_S_CRTM_VERSION"}, {0x9, "EV_CPU_MICROCODE"}, {0xa, "EV_PLATFORM_CONFIG_FLAGS"}, {0xb, "EV_TABLE_OF_DEVICES"},
	{0xc, "EV_COMPACT_HASH"}, {0xd, "EV_IPL"}, {0xe, "EV_IPL_PARTITION_DATA"}, {0xf, "EV_NONHOST_CODE"}, {0x10, "EV_NONHOST_CONFIG"}, {0x11, "EV_NONHOST_INFO"},
	{0x12, "EV_OMIT_BOOT_DEVICE_EVENTS"}, {evVariableConfig, "EV_EFI_VARIABLE_DRIVER_CONFIG"}, {evVariableBoot, "EV_EFI_VARIABLE_BOOT"},
	{evApplication, "EV_EFI_BOOT_SERVICES_APPLICATION"}, {evDriver, "EV_EFI_BOOT_SERVICES_DRIVER"}, {evRuntimeDriver, "EV_EFI_RUNTIME_SERVICES_DRIVER"},
	{0x80000006, "EV_EFI_GPT_EVENT"}, {evAction, "EV_EFI_ACTION"}, {0x80000008, "EV_EFI_PLATFORM_FIRMWARE_BLOB"}, {0x80000009, "EV_EFI_HANDOFF_TABLES"},
	{0x8000000a, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"}, {0x8000000b, "EV_EFI_HANDOFF_TABLES2"}, {evVariableBoot2, "EV_EFI_VARIABLE_BOOT2"},
	{0x8000000d, "EV_EFI_GPT_EVENT2"}, {0x80000010, "EV_EFI_HCRTM_EVENT"}, {evAuthority, "EV_EFI_VARIABLE_AUTHORITY"},
	{0x800000e1, "EV_EFI_SPDM_FIRMWARE_BLOB"}, {0x800000e2, "EV_EFI_SPDM_FIRMWARE_CONFIG"},
}

func typeName(typ uint32) string {
	for _, t := range typeNames {
		if t.typ == typ {
			return t.name
		}
	}
	return fmt.Sprintf("event type %#x", typ)
}

// Types whose data is understood.
const (
	evSeparator      = 0x4
	evEventTag       = 0x6
	evSCRTMVersion   = 0x8
	evIPL            = 0xd
	evVariableConfig = 0x80000001
	evVariableBoot   = 0x80000002
	evApplication    = 0x80000003
	evDriver         = 0x80000004
	evRuntimeDriver  = 0x80000005
	evAction         = 0x80000007
	evVariableBoot2  = 0x8000000c
	evAuthority      = 0x800000e0
)

// maxText is how much of a text from the log is shown.
const maxText = 80

// String names the event in one line of ASCII, such as
// `variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG)`.
func (e Event) String() string {
	if e.Type == 0 && e.Text != "" {
		return clean(e.Text)
	}
	name := typeName(e.Type)
	if what := e.what(); what != "" {
		return what + " (" + name + ")"
	}
	return name
}

// what reads the subject of an event from its data.
func (e Event) what() string {
	switch e.Type {
	case evVariableConfig, evVariableBoot, evVariableBoot2, evAuthority:
		if name, _, ok := e.variable(); ok {
			return "variable " + clean(name)
		}
	case evApplication, evDriver, evRuntimeDriver:
		if path := e.imagePath(); path != "" {
			return "program " + clean(path)
		}
	case evSeparator:
		return "end of the firmware's part"
	case evIPL, evAction, evSCRTMVersion:
		return clean(text(e.Data))
	case evEventTag:
		if len(e.Data) > 8 { // id, size, then the text that systemd-stub measures
			return clean(text(e.Data[8:]))
		}
	}
	return ""
}

// variable splits UEFI_VARIABLE_DATA (§10.4.2).
func (e Event) variable() (name string, content []byte, ok bool) {
	const head = 16 + 8 + 8
	if len(e.Data) < head {
		return "", nil, false
	}
	nameLen, dataLen := binary.LittleEndian.Uint64(e.Data[16:]), binary.LittleEndian.Uint64(e.Data[24:])
	rest := uint64(len(e.Data) - head)
	if nameLen > rest/2 || dataLen > rest-2*nameLen {
		return "", nil, false
	}
	end := head + 2*nameLen
	return utf16Text(e.Data[head:end]), e.Data[end : end+dataLen], true
}

// imagePath finds the file in the device path of UEFI_IMAGE_LOAD_EVENT (§10.4.3).
func (e Event) imagePath() string {
	const head = 4 * 8
	if len(e.Data) < head {
		return ""
	}
	for path := e.Data[head:]; len(path) >= 4; {
		kind, sub, size := path[0], path[1], int(binary.LittleEndian.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			return ""
		}
		if kind == 4 && sub == 4 { // media device path, file path
			return utf16Text(path[4:size])
		}
		path = path[size:]
	}
	return ""
}

// text reads a string that is UTF-16 when every second of its first bytes is
// zero.
func text(b []byte) string {
	if len(b) >= 4 && b[1] == 0 && b[3] == 0 {
		return utf16Text(b)
	}
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// UTF16Text reads little-endian UTF-16 up to a NUL.
func UTF16Text(b []byte) string { return utf16Text(b) }

func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// clean makes a text from the log fit for a terminal: ASCII, one line, not long.
// A text of rubbish is none.
func clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	quoted := strconv.QuoteToASCII(s)
	quoted = quoted[1 : len(quoted)-1]
	if strings.Count(quoted, `\x`) > len(s)/8 {
		return ""
	}
	return strings.ReplaceAll(strings.ReplaceAll(quoted, `\"`, `"`), `\\`, `\`)
}

// SecureBootFlipped is the digest that an event of the SecureBoot variable would
// have had with the opposite setting, and whether that means on. ok is false for
// every other event.
func (e Event) SecureBootFlipped(bank string) (digest []byte, on, ok bool) {
	name, content, isVariable := e.variable()
	if e.Type != evVariableConfig || !isVariable || name != "SecureBoot" || len(content) != 1 || content[0] > 1 {
		return nil, false, false
	}
	data := bytes.Clone(e.Data)
	data[len(data)-1] ^= 1
	h := hashOf(bank).New()
	h.Write(data)
	return h.Sum(nil), content[0] == 0, true
}
