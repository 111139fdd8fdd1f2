package eventlog

import (
	"encoding/binary"
	"fmt"
)

// Types of events that a model of the boot asks for (TCG PC Client Platform
// Firmware Profile 1.06 §10.4.1).
const (
	TypeSeparator      = evSeparator
	TypeTag            = evEventTag
	TypeIPL            = evIPL
	TypeVariableConfig = evVariableConfig
	TypeVariableBoot   = evVariableBoot
	TypeVariableBoot2  = evVariableBoot2
	TypeAuthority      = evAuthority
	TypeApplication    = evApplication
	TypeDriver         = evDriver
	TypeRuntimeDriver  = evRuntimeDriver
	TypeAction         = evAction
)

// Variable splits the data of an event about an EFI variable.
func (e Event) Variable() (name, guid string, content []byte, ok bool) {
	switch e.Type {
	case evVariableConfig, evVariableBoot, evVariableBoot2, evAuthority:
	default:
		return "", "", nil, false
	}
	if name, content, ok = e.variable(); !ok {
		return "", "", nil, false
	}
	return name, guidText(e.Data[:16]), content, true
}

// guidText writes an EFI_GUID, whose first three fields are little-endian.
func guidText(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

// ImagePath is the path of the program that an event is about, with backslashes;
// "" when the event names none, as for programs that lie in memory.
func (e Event) ImagePath() string {
	switch e.Type {
	case evApplication, evDriver, evRuntimeDriver:
		return e.imagePath()
	}
	return ""
}

// PartitionGUID is the GUID of the partition that the program of an event lies on,
// "" when the event does not say.
func (e Event) PartitionGUID() string {
	const head, sizeNode, typeGUID = 4 * 8, 42, 2
	if e.Type != evApplication || len(e.Data) < head {
		return ""
	}
	for path := e.Data[head:]; len(path) >= 4; {
		size := int(binary.LittleEndian.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			return ""
		}
		// Media device path, hard drive (UEFI 2.10 §10.3.5.1).
		if path[0] == 4 && path[1] == 1 && size >= sizeNode && path[41] == typeGUID {
			return guidText(path[24:40])
		}
		path = path[size:]
	}
	return ""
}

// Tag splits the data of an EV_EVENT_TAG: its number and what follows.
func (e Event) Tag() (id uint32, content []byte, ok bool) {
	if e.Type != evEventTag || len(e.Data) < 8 {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint32(e.Data), e.Data[8:], true
}

// IPLText is the text of an EV_IPL event, such as "grub_cmd: boot".
func (e Event) IPLText() string {
	if e.Type != evIPL {
		return ""
	}
	return text(e.Data)
}
