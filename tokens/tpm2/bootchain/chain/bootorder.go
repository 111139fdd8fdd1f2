package chain

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// StartedFirst names the program that firmware starts at the next boot in place of the
// one that it started for this one, for which somebody chose another boot option, this
// once; "" where there is none. It is that of an option before the one that was started,
// on the same partition and of a kind that is known here: what is elsewhere may not be
// there, and who passes over Windows each time starts the same again.
func StartedFirst(m *Machine, esp Files) string {
	current, err := m.Variables.Get("BootCurrent", efi.Global)
	order, err2 := m.Variables.Get("BootOrder", efi.Global)
	first := m.firstProgram()
	if err != nil || err2 != nil || len(current) != 2 || first < 0 {
		return ""
	}
	started := m.Events[first]
	for _, n := range efi.Order(order) {
		if n == binary.LittleEndian.Uint16(current) {
			return ""
		}
		if file := m.optionFile(n, started.PartitionGUID()); file != "" && isOther(esp, file, slashes(started.ImagePath())) {
			return fmt.Sprintf("%s (Boot%04X)", file, n)
		}
	}
	return ""
}

// optionFile is the file that an active boot option names on a partition, "" if it names
// none.
func (m *Machine) optionFile(n uint16, partition string) string {
	b, err := m.Variables.Get(fmt.Sprintf("Boot%04X", n), efi.Global)
	if err != nil {
		return ""
	}
	o, err := efi.ParseLoadOption(b)
	if err != nil || !o.Active {
		return ""
	}
	// UEFI_IMAGE_LOAD_EVENT: three words, and the size of the device path.
	data := binary.LittleEndian.AppendUint64(make([]byte, 24), uint64(len(o.Path)))
	e := eventlog.Event{Type: eventlog.TypeApplication, Data: append(data, o.Path...)}
	if partition == "" || !strings.EqualFold(e.PartitionGUID(), partition) || e.ImagePath() == "" {
		return ""
	}
	return slashes(e.ImagePath())
}

// isOther reports whether a file is a boot program of a known kind, and not the same one
// as another file.
func isOther(esp Files, file, than string) bool {
	digest := func(file string) (d Digest, kind Kind) {
		f, err := esp.Open(file)
		if err != nil {
			return d, Other
		}
		p, err := identify(f, file)
		if err != nil {
			return d, Other
		}
		if d, err = p.Authenticode(); err != nil {
			return d, Other
		}
		return d, p.kind
	}
	d, kind := digest(file)
	was, _ := digest(than)
	return (kind == SDBoot || kind == Shim || kind == GRUB || kind == Stub) && !bytes.Equal(d[:], was[:])
}
