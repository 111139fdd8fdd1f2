package eventlog

import (
	"encoding/binary"
	"strings"
)

// tagPart is the subject of an EV_EVENT_TAG: of the EFI stub of Linux
// (drivers/firmware/efi/libstub), systemd-boot and systemd-stub (systemd 262
// src/boot/measure.h).
func tagPart(tag uint32) string {
	switch tag {
	case 0x8f3b22ec:
		return partInitrd
	case 0x8f3b22ed:
		return partCommandLine
	case 0xf5bc582a:
		return "loader.conf"
	}
	return ""
}

// Parts of the machine that several kinds of events are about.
const (
	partKernel      = "the kernel"
	partInitrd      = "the initrd"
	partCommandLine = "the kernel command line"
)

// Part names what of the machine an event is about, in the words of its owner: "the
// initrd", "/EFI/Linux/arch.efi"; "" if the event does not tell.
func (e Event) Part() string {
	switch e.Type {
	case evApplication:
		if p := e.imagePath(); p != "" {
			return clean("/" + strings.TrimLeft(strings.ReplaceAll(p, `\`, "/"), "/"))
		}
		return partKernel
	case evVariableConfig, evVariableBoot, evVariableBoot2, evAuthority:
		return e.variablePart()
	case evEventTag:
		if len(e.Data) >= 4 {
			return tagPart(binary.LittleEndian.Uint32(e.Data))
		}
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
	case name == "dbx":
		return "the list of revoked programs (dbx)"
	case e.Type == evAuthority:
		return "the certificate that lets a program start"
	case name == "SecureBoot":
		return "the setting of Secure Boot"
	case e.PCR == 7:
		return "the Secure Boot variable " + clean(name)
	}
	return ""
}

// iplPart is about what boot loaders and systemd-stub measure.
func (e Event) iplPart() string {
	what := text(e.Data)
	switch e.PCR {
	case 8:
		if strings.HasPrefix(what, "kernel_cmdline") {
			return partCommandLine
		}
		return "grub.cfg"
	case 9:
		if i := strings.IndexByte(what, '/'); i >= 0 {
			return clean(what[i:])
		}
	case 11:
		return sectionPart(what)
	case 12:
		return partCommandLine
	}
	return ""
}

// sectionPart is about a section of a unified kernel image.
func sectionPart(name string) string {
	switch name {
	case ".linux":
		return partKernel
	case ".initrd":
		return partInitrd
	case ".cmdline":
		return partCommandLine
	}
	if strings.HasPrefix(name, ".") {
		return "section " + clean(name) + " of the kernel image"
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
