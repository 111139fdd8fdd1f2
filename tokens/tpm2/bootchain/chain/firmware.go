package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// afterFirmware are the PCRs that programs write which firmware starts.
var afterFirmware = []int{4, 5, 7, 8, 9, 11, 12, 13, 14}

// evNoAction marks entries of the log that extend nothing.
const evNoAction = 3

// firmware keeps what the firmware itself measures: its code and settings in PCR 0
// to 3 and 6, and what comes before its first program in the others. None of it
// can be told from files, and all of it stays while firmware and its settings do
// (every chain's base-again).
func (r *run) firmware(first int) {
	for i, e := range r.m.Events {
		if e.Type == evNoAction || e.PCR > 7 || e.PCR == 7 {
			continue
		}
		if id, _, tag := e.Tag(); tag && (e.PCR == 1 && smbiosType(id) != 0 || e.PCR == 5) {
			continue // systemd's, see smbios and loaderConf
		}
		if e.PCR < 4 || e.PCR == 6 || i < first || e.Type == gptEvent {
			r.add(kept(e))
		}
	}
	r.firmwarePrograms(first)
	r.bootVariables()
}

// gptEvent is EV_EFI_GPT_EVENT: the partition table of the disk that is booted.
const gptEvent = 0x80000006

// firmwarePrograms looks at programs that were started before the first one with a
// path on the ESP, as by the agents of some laptops. They are kept with the rest.
func (r *run) firmwarePrograms(first int) {
	for _, e := range r.m.Events[:first] {
		if e.Type == eventlog.TypeApplication && e.PCR != 4 {
			r.unknown("a program was measured into a PCR where none is expected: "+e.String(), e.PCR)
		}
	}
}

// bootVariables compares the boot options with what was logged. PCR 1 holds all of
// them, and the first one decides which program is started.
func (r *run) bootVariables() {
	if r.m.Variables.FS == nil {
		return
	}
	for _, e := range r.m.Events {
		name, guid, logged, ok := e.Variable()
		if !ok || e.PCR != 1 {
			continue
		}
		if now, err := r.m.Variables.Get(name, guid); err != nil || !bytes.Equal(now, logged) {
			r.unknown("the boot options were changed: "+name, 1)
			r.orderChanged(name, logged, now)
		}
	}
}

// orderChanged makes everything unknown if another boot option would be first.
func (r *run) orderChanged(name string, logged, now []byte) {
	was, is := efi.Order(logged), efi.Order(now)
	if name == "BootOrder" && (len(is) == 0 || len(was) == 0 || was[0] != is[0]) {
		r.unknown("another boot option is the first now", afterFirmware...)
	}
	if current, err := r.m.Variables.Get("BootCurrent", efi.Global); err == nil && len(current) == 2 {
		if name == fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(current)) {
			r.unknown("the boot option that was started is another now", afterFirmware...)
		}
	}
}

// autoCreated is what OVMF leaves behind the boot options that it makes by itself
// (edk2 MdeModulePkg, mBmAutoCreateBootOptionGuid); it is not given to programs.
var autoCreated = []byte{0x4e, 0xac, 0x08, 0x81, 0x11, 0x9f, 0x59, 0x4d, 0x85, 0x0e, 0xe2, 0x1a, 0x52, 0x2c, 0x59, 0xb2}

// bootOption refuses boot options with arguments: a loader, or a kernel image
// without one, takes them as options. None was measured.
func (r *run) bootOption() {
	current, err := r.m.Variables.Get("BootCurrent", efi.Global)
	if err != nil || len(current) != 2 {
		return
	}
	name := fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(current))
	b, err := r.m.Variables.Get(name, efi.Global)
	if errors.Is(err, fs.ErrNotExist) {
		return // removed: bootVariables says so
	}
	o, err2 := efi.ParseLoadOption(b)
	if err = errors.Join(err, err2); err != nil {
		r.unknown(fmt.Sprintf("%s: %v", name, err), afterFirmware...)
	} else if len(o.Data) > 0 && !bytes.Equal(o.Data, autoCreated) {
		r.unknown("the boot option "+name+" gives arguments to its program", afterFirmware...)
	}
}

// secureBootVariables gives PCR 7: the variables as they are now, then the
// authorities of the running boot. Those stay while the same certificates sign what
// is started, see Prediction. The digest of a variable is that of UEFI_VARIABLE_DATA
// (shim/dbx: one more hash in dbx).
func (r *run) secureBootVariables() {
	for _, e := range r.m.Events {
		if e.PCR != 7 || e.Type == evNoAction {
			continue
		}
		if name, guid, logged, ok := e.Variable(); ok && e.Type == eventlog.TypeVariableConfig {
			r.add(r.variable(e, name, guid, logged))
		} else {
			r.add(kept(e))
		}
	}
	for _, name := range []string{"MokNew", "MokDel", "MokXNew", "MokXDel", "MokAuth", "MokSB", "MokDB", "SbatPolicy"} {
		if r.shim && r.m.Variables.Has(name, efi.Shim) {
			r.unknown("shim has a request to work off at the next boot: "+name, 4, 7, 14)
		}
	}
}

// variable is the measurement of a variable as it is now.
func (r *run) variable(e eventlog.Event, name, guid string, logged []byte) Measurement {
	now, err := r.m.Variables.Get(name, guid)
	switch {
	case r.m.Variables.FS == nil, err == nil && bytes.Equal(now, logged), errors.Is(err, fs.ErrNotExist) && len(logged) == 0:
		return kept(e)
	case err != nil || name != "dbx":
		r.unknown("the variable "+name+" was changed, and what firmware makes of it was not measured", 7)
		return kept(e)
	}
	return known(7, variableDigest(e.Data, logged, now), "variable dbx", "the firmware's variables")
}

// variableDigest hashes UEFI_VARIABLE_DATA (TCG PC Client Platform Firmware Profile
// 1.06 §10.4.2) with new content.
func variableDigest(data, logged, now []byte) Digest {
	head := bytes.Clone(data[:len(data)-len(logged)])
	binary.LittleEndian.PutUint64(head[24:], uint64(len(now)))
	return sha256.Sum256(append(head, now...))
}
