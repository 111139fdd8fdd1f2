package chain

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"luksmith/tokens/tpm2/eventlog"
)

// Target is what a boot loader is told to start: a unified kernel image, or the
// file of an entry.
type Target struct {
	Files Files
	Path  string // "/EFI/Linux/arch.efi", "/loader/entries/debian.conf"
}

// Run is a boot that was followed from the files.
type Run struct {
	Measurements []Measurement
	Parts        []Part
	// Unknown says for a PCR why it cannot be told.
	Unknown map[int]string
	// Unmeasured says for a PCR which program writes it that is of a version whose
	// measurements nobody compared with a TPM.
	Unmeasured map[int]string
	// Likely says for a PCR what about it was not seen in a measured boot, though
	// nothing speaks against it.
	Likely map[int]string
	// GRUBConfig is the text of grub.cfg that GRUB ran, for a later [GRUBBoot].
	GRUBConfig []byte
}

// run is a Run in the making.
type run struct {
	*Run
	m          *Machine
	esp        Files
	target     Target
	grub       *GRUBBoot // how GRUB went in the running boot
	secureBoot bool
	shim       bool // a shim is in the chain
	smbiosDone bool // systemd measured the SMBIOS tables
	front      []part
}

// ErrNoLog: the event log does not name a program that firmware started.
var ErrNoLog = errors.New("the event log names no program that the firmware started")

// Simulate follows the boot of a target. esp is the partition that firmware starts
// from. grub is needed if the chain goes through GRUB and may be nil otherwise.
func Simulate(m *Machine, esp Files, target Target, grub *GRUBBoot) (*Run, error) {
	first := m.firstProgram()
	if first < 0 {
		return nil, ErrNoLog
	}
	r := &run{Run: &Run{Unknown: map[int]string{}, Unmeasured: map[int]string{}, Likely: map[int]string{}}, m: m, esp: esp, target: target, grub: grub, secureBoot: m.SecureBoot()}
	r.firmware(first)
	r.bootOption()
	r.start(slashes(m.Events[first].ImagePath()), "loader")
	r.keepShim()
	r.secureBootVariables()
	r.afterLoader(first)
	return r.Run, nil
}

func (r *run) add(m ...Measurement) { r.Measurements = append(r.Measurements, m...) }

// unknown marks PCRs. The first reason is kept.
func (r *run) unknown(reason string, pcrs ...int) {
	for _, pcr := range pcrs {
		if r.Unknown[pcr] == "" {
			r.Unknown[pcr] = reason
		}
	}
}

func (r *run) unmeasured(reason string, pcrs ...int) {
	for _, pcr := range pcrs {
		if r.Unmeasured[pcr] == "" {
			r.Unmeasured[pcr] = reason
		}
	}
}

func (r *run) likely(reason string, pcrs ...int) {
	for _, pcr := range pcrs {
		if r.Likely[pcr] == "" {
			r.Likely[pcr] = reason
		}
	}
}

// slashes turns the path of a device path into one of Files. Firmware and loaders
// write them with one or two backslashes.
func slashes(p string) string {
	return path.Clean("/" + strings.ReplaceAll(p, `\`, "/"))
}

// start follows what the firmware or a shim starts from the ESP.
func (r *run) start(file, role string) {
	p := r.open(r.esp, file, role)
	if p == nil {
		return
	}
	switch p.kind {
	case Shim:
		r.startShim(p)
	case GRUB:
		r.startGRUB(p)
	case SDBoot:
		r.startSDBoot(p)
	case Stub:
		r.startStub(p, r.esp, "", "")
	default:
		r.unknown(fmt.Sprintf("%s: it is not known what this program measures", file), Other.writes()...)
	}
}

// open opens a program, notes it, and adds what LoadImage measures of it: its
// Authenticode digest in PCR 4, whoever loads it (all chains; its path and its
// signature are in no digest: ukisb, more257/counted).
func (r *run) open(files Files, file, role string) *program {
	f, err := files.Open(file)
	if err != nil {
		r.unknown(missing(file, err), Other.writes()...)
		return nil
	}
	p, err := identify(f, file)
	if err != nil {
		r.unknown(fmt.Sprintf("%s: %v", file, err), Other.writes()...)
		return nil
	}
	r.note(p, role)
	r.add(p.loaded())
	if !p.known() {
		r.unmeasured(fmt.Sprintf("%s is %s, and what this version measures was not compared with a TPM", file, p.describe()), p.kind.writes()...)
	}
	return p
}

func missing(file string, err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return file + " is missing"
	}
	return fmt.Sprintf("%s: %v", file, err)
}

// loaded is the measurement of LoadImage.
func (p *program) loaded() Measurement {
	return Measurement{4, string(p.kind), p.path, once(p.Authenticode)}
}

func (r *run) note(p *program, role string) {
	part := Part{Role: role, Path: p.path, Kind: p.kind, Version: p.version}
	var err error
	if part.Signers, err = p.Signers(); err != nil && r.secureBoot {
		r.unknown(fmt.Sprintf("%s: %v", p.path, err), 7)
	}
	if d, err := p.Authenticode(); err == nil {
		part.Digest = d[:]
	} else {
		r.unknown(fmt.Sprintf("%s: %v", p.path, err), 4)
	}
	r.Parts = append(r.Parts, part)
}

// afterLoader keeps what firmware measures when the kernel takes over.
func (r *run) afterLoader(first int) {
	for _, e := range r.m.Events[first:] {
		if e.PCR == 5 && e.Type == eventlog.TypeAction {
			r.add(kept(e))
		}
	}
}
