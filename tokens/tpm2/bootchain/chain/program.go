package chain

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"luksmith/tokens/tpm2/bootchain/pe"
)

// Kind is what a program of the boot chain is.
type Kind string

// The programs that are known.
const (
	Shim   Kind = "shim"
	GRUB   Kind = "GRUB"
	SDBoot Kind = "systemd-boot"
	Stub   Kind = "systemd-stub"
	Addon  Kind = "addon"
	Kernel Kind = "kernel"
	Other  Kind = "program"
)

// measuredVersions are the versions whose measurements were compared with the
// TPM's values, boot by boot. Whatever is not here makes the PCRs that it writes
// unknown: being able to reproduce the boot that is running does not show what
// another program does (of the first predictions across an update of a loader,
// five were wrong).
func measuredVersions(k Kind) (versions []string, limited bool) {
	switch k {
	case Shim:
		return []string{"16.1"}, true
	case GRUB:
		return []string{"2.06", "2.12"}, true
	case SDBoot, Stub:
		return []string{"252", "257", "262"}, true
	}
	return nil, false
}

// writes are the PCRs that a program can write.
func (k Kind) writes() []int {
	switch k {
	case Shim:
		return []int{4, 7, 14}
	case GRUB:
		return []int{4, 8, 9}
	case SDBoot, Stub:
		return []int{1, 4, 5, 9, 11, 12, 13}
	case Addon:
		return []int{4, 9, 12}
	case Kernel:
		return []int{4, 9}
	}
	return []int{4, 5, 7, 8, 9, 11, 12, 13, 14}
}

// Part is a program of a chain as it was or will be started.
type Part struct {
	Role    string      `json:"role"` // "loader", "second", "entry", "addon NAME"
	Path    string      `json:"path"`
	Kind    Kind        `json:"kind"`
	Version string      `json:"version,omitempty"`
	Signers []pe.Signer `json:"signers,omitempty"`
	Digest  []byte      `json:"digest"` // Authenticode
}

// program is a program that was opened.
type program struct {
	Program
	file    File
	path    string
	kind    Kind
	version string
}

// Texts that say what a program is.
var (
	sdMagic  = expression{text: `^#### LoaderInfo: systemd-(boot|stub|addon) ([0-9]+)([^ ]*) ####`}
	shimSBAT = expression{text: `(?m)^shim\.[^,\n]*,[^,\n]*,[^,\n]*,shim,([0-9.]+)[^,\n]*,`}
	grubSBAT = expression{text: `(?m)^grub,[^,\n]*,[^,\n]*,grub,([0-9.]+)[^,\n]*,`}
)

// expression is compiled when a program is first looked at: most commands that contain
// this package look at none.
type expression struct {
	text string
	once sync.Once
	re   *regexp.Regexp
}

// groups are those of the first match, nil without one.
func (e *expression) groups(s string) []string {
	e.once.Do(func() { e.re = regexp.MustCompile(e.text) })
	return e.re.FindStringSubmatch(s)
}

// identify finds out what a program is: from .sdmagic, which systemd's programs
// carry, from .sbat, or from the header of a kernel.
func identify(f File, path string) (*program, error) {
	p, err := f.Program()
	if err != nil {
		return nil, err
	}
	k := &program{Program: p, file: f, path: path, kind: Other}
	magic, err := sectionText(p, ".sdmagic")
	if err != nil {
		return nil, err
	}
	sbat, err := sectionText(p, ".sbat")
	if err != nil {
		return nil, err
	}
	switch m := sdMagic.groups(magic); {
	case m != nil:
		k.kind = map[string]Kind{"boot": SDBoot, "stub": Stub, "addon": Addon}[m[1]]
		k.version = m[2]
		if strings.HasPrefix(m[3], "~") || strings.HasPrefix(m[3], "-rc") {
			k.version += m[3] // before the release: another program
		}
	case strings.Contains(sbat, "\nshim,"):
		k.kind, k.version = Shim, firstGroup(&shimSBAT, sbat)
	case strings.Contains(sbat, "\ngrub,"):
		k.kind, k.version = GRUB, firstGroup(&grubSBAT, sbat)
	default:
		k.version, err = kernelRelease(f)
		if k.version != "" {
			k.kind = Kernel
		}
	}
	return k, err
}

func firstGroup(e *expression, s string) string {
	if m := e.groups(s); m != nil {
		return m[1]
	}
	return ""
}

// known reports whether the program's version was measured.
func (p *program) known() bool { return Part{Kind: p.kind, Version: p.version}.Measured() }

// Measured reports whether the version was compared with a TPM, if that matters for
// programs of its kind.
func (p Part) Measured() bool {
	versions, limited := measuredVersions(p.Kind)
	return !limited || slices.Contains(versions, p.Version)
}

func (p *program) describe() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", p.kind, p.version))
}

// section returns the first section of a name with content.
func section(p Program, name string) (File, bool) {
	for _, s := range p.Sections() {
		if s.Name == name && s.Size() > 0 {
			return s.File, true
		}
	}
	return nil, false
}

// sectionText reads a small section up to its first NUL.
func sectionText(p Program, name string) (string, error) {
	f, ok := section(p, name)
	if !ok {
		return "", nil
	}
	b, err := readText(f)
	if err != nil {
		return "", fmt.Errorf("section %s: %w", name, err)
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b), nil
}

// Places in the setup header of a kernel (Documentation/arch/x86/boot.rst, "The
// Real-Mode Kernel Header").
const (
	offsetHdrS    = 0x202
	offsetVersion = 0x20e // where the version stands, less 0x200
	sizeSetup     = 64 << 10
)

// kernelRelease is the release of a Linux kernel for x86, "" for other programs.
func kernelRelease(f File) (string, error) {
	b, err := f.Head(sizeSetup)
	if err != nil || len(b) < offsetVersion+2 || string(b[offsetHdrS:offsetHdrS+4]) != "HdrS" {
		return "", err
	}
	at := int(binary.LittleEndian.Uint16(b[offsetVersion:])) + 0x200
	if at >= len(b) {
		return "unknown", nil
	}
	text, _, _ := bytes.Cut(b[at:], []byte{0})
	release, _, _ := strings.Cut(string(text), " ")
	return release, nil
}
