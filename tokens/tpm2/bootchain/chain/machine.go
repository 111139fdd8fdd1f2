package chain

import (
	"io/fs"
	"slices"

	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// Machine is what is known of the machine that boots: the log of the boot that is
// running, and what firmware shows of its settings now.
type Machine struct {
	Events []eventlog.Event
	// Variables are the firmware's as they are now. Without them (nil FS) they are
	// taken to be as they were logged.
	Variables efi.Variables
	// SMBIOS are the tables of the firmware; nil when they are not known.
	SMBIOS []efi.Structure
	// BootSecret is what systemd-stub since version 261 puts into the initrd, nil
	// when it is not known. It is a secret of the machine: it is used for PCR 9 in
	// memory and stands in no record.
	BootSecret *BootSecret
	// Kernel is the release of the running kernel, "6.12.9-amd64".
	Kernel string
}

// BootSecret is the boot secret of one operating system on one boot partition.
// Who has another ID, or another mixin file, has another secret (uki262x/otherid,
// uki262x/nomixin).
type BootSecret struct {
	Secret [32]byte
	ID     string // of the operating system, see osID
	Mixin  []byte // content of /loader/boot-secret-mixin
}

// firstProgram is the index of the event about the first program that firmware
// started from a file, or -1.
func (m *Machine) firstProgram() int {
	return slices.IndexFunc(m.Events, func(e eventlog.Event) bool {
		return e.PCR == 4 && e.Type == eventlog.TypeApplication && e.ImagePath() != ""
	})
}

// SecureBoot reports whether Secure Boot was on when the log was written: the
// variable is the first that firmware measures into PCR 7.
func (m *Machine) SecureBoot() bool {
	for _, e := range m.Events {
		if name, _, content, ok := e.Variable(); ok && e.PCR == 7 && name == "SecureBoot" {
			return len(content) == 1 && content[0] == 1
		}
	}
	return false
}

// Loader is the kind of the program that chooses what is booted: the first one that
// firmware starts, or what a shim starts.
func Loader(m *Machine, esp Files) (Kind, error) {
	run, err := Simulate(m, esp, Target{Files: nowhere{}}, nil)
	if err != nil || len(run.Parts) == 0 {
		return Other, err
	}
	if kind := run.Parts[0].Kind; kind != Shim || len(run.Parts) == 1 {
		return kind, nil
	}
	return run.Parts[1].Kind, nil
}

// nowhere is a file system without files.
type nowhere struct{}

func (nowhere) Open(string) (File, error)     { return nil, fs.ErrNotExist }
func (nowhere) List(string) ([]string, error) { return nil, nil }
