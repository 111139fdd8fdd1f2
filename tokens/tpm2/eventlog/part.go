package eventlog

import (
	"encoding/binary"
	"strings"
)

// Tags of EV_EVENT_TAG whose subject is known: the EFI stub of Linux
// (drivers/firmware/efi/libstub), systemd-boot and systemd-stub (systemd 262
// src/boot/measure.h).
var tagParts = map[uint32]string{
	0x8f3b22ec: "the initrd", 0x8f3b22ed: "the kernel command line", 0xf5bc582a: "loader.conf",
	0xd5cb7cbc: "the SMBIOS tables", 0xe0d47bc8: "the SMBIOS tables", 0xc0b3bd23: "the SMBIOS tables",
}

// sectionParts are the sections of a unified kernel image that people know by another
// name.
var sectionParts = map[string]string{".linux": "the kernel", ".initrd": "the initrd", ".cmdline": "the kernel command line"}

// Part names what of the machine an event is about, in the words of its owner: "the
// initrd", "/EFI/Linux/arch.efi"; "" if the event does not tell.
func (e Event) Part() string {
	switch e.Type {
	case evApplication:
		if p := e.imagePath(); p != "" {
			return clean("/" + strings.TrimLeft(strings.ReplaceAll(p, `\`, "/"), "/"))
		}
		return "the kernel"
	case evVariableConfig, evVariableBoot, evVariableBoot2, evAuthority:
		return e.variablePart()
	case evEventTag:
		if len(e.Data) >= 4 {
			return tagParts[binary.LittleEndian.Uint32(e.Data)]
		}
	case evSCRTMVersion, 0x80000008, 0x8000000a:
		return "the firmware"
	case 0x80000006, 0x8000000d:
		return "the partition table"
	case evIPL:
		return e.iplPart()
	}
	return ""
}

// variablePart is about a variable of the firmware.
func (e Event) variablePart() string {
	name, _, ok := e.variable()
	switch {
	case !ok:
		return ""
	case name == "SbatLevel":
		return "the list of revoked loaders (SbatLevel)"
	case name == "dbx":
		return "the list of revoked programs (dbx)"
	case e.Type == evAuthority:
		return "the certificate that lets a program start"
	case name == "SecureBoot":
		return "the setting of Secure Boot"
	case e.PCR == 7:
		return "the Secure Boot variable " + clean(name)
	case e.PCR == 1:
		return "the boot options"
	}
	return ""
}

// iplPart is about what boot loaders and systemd-stub measure.
func (e Event) iplPart() string {
	what := text(e.Data)
	switch e.PCR {
	case 8:
		if strings.HasPrefix(what, "kernel_cmdline") {
			return "the kernel command line"
		}
		return "grub.cfg"
	case 9:
		if i := strings.IndexByte(what, '/'); i >= 0 {
			return clean(what[i:])
		}
	case 11:
		if part := sectionParts[what]; part != "" || !strings.HasPrefix(what, ".") {
			return part
		}
		return "section " + clean(what) + " of the kernel image"
	case 12:
		return "the kernel command line"
	case 14:
		return "the keys of the machine's owner"
	}
	return ""
}

// Changed are the events of a PCR that are new or changed since the earlier boot.
func Changed(old Old, events []Event, bank string, pcr int) []Event {
	present := Of(events, pcr)
	_, matched := match(old, present, bank)
	var list []Event
	for i, e := range present {
		if !matched[i] {
			list = append(list, e)
		}
	}
	return list
}
