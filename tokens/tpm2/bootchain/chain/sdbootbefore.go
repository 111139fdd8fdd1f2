package chain

import (
	"bytes"
	"fmt"
	"slices"

	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// What systemd-boot does before it looks at entries (systemd 257 src/boot/boot.c, run
// and secure_boot_discover_keys; drivers.c). Of drivers it was seen that OVMF measures
// one into PCR 2 and nothing else changes (ext4_x64.efi of refind 0.13.2).

// fromDrivers are the PCRs that firmware measures drivers and their signers into: 2, by
// EDK II (TCG PC Client Platform Firmware Profile 1.06 §3.3.4.3), or 4.
var fromDrivers = []int{2, 4, 7}

// drivers are started by the loader, in the order of their folder. The events of the
// running boot are kept, which is right while the drivers are the ones that they name.
func (r *run) drivers() {
	const folder = "/EFI/systemd/drivers"
	names, err := listWith(r.esp, folder, "x64.efi")
	if err != nil {
		r.unknown(missing(folder, err), fromDrivers...)
	}
	started := r.startedDrivers()
	for _, n := range names {
		d, err := r.driver(folder + "/" + n)
		if err != nil {
			r.unknown(fmt.Sprintf("%s/%s: %v", folder, n, err), fromDrivers...)
		} else if i := slices.Index(started, d); i >= 0 {
			started = slices.Delete(started, i, i+1)
		} else {
			r.unknown(folder+"/"+n+" was not started in this boot, and what is measured of drivers is not known", fromDrivers...)
		}
	}
	if len(started) > 0 {
		r.unknown("a driver that was started in this boot is not in "+folder+" any more", fromDrivers...)
	}
}

func (r *run) driver(file string) (d Digest, err error) {
	f, err := r.esp.Open(file)
	if err != nil {
		return d, err
	}
	p, err := f.Program()
	if err != nil {
		return d, err
	}
	return p.Authenticode()
}

// startedDrivers are the digests of drivers that the log has behind the loader.
func (r *run) startedDrivers() (list []Digest) {
	for _, e := range r.m.Events[r.m.firstProgram():] {
		driver := e.Type == eventlog.TypeDriver || e.Type == eventlog.TypeRuntimeDriver
		if b := e.Digests[Bank]; driver && len(b) == len(Digest{}) {
			list = append(list, Digest(b))
		}
	}
	return list
}

// enrollsKeys: in setup mode the loader may make keys those of the firmware, which
// switches Secure Boot on.
func (r *run) enrollsKeys() {
	setup, err := r.m.Variables.Get("SetupMode", efi.Global)
	if err != nil || !bytes.Equal(setup, []byte{1}) {
		return
	}
	const folder = "/loader/keys/auto"
	if names, err := r.esp.List(folder); err != nil || len(names) > 0 {
		r.unknown("systemd-boot may enrol the Secure Boot keys in "+folder, afterFirmware...)
	}
}
