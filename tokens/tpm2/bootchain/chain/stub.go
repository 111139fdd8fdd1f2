package chain

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens/tpm2/bootchain/efi"
)

// unifiedSections are the sections that the stub measures into PCR 11, in its order
// (systemd src/fundamental/uki.h), and since which version, by the boots that show
// it: 252 has four (uki/stub252), 257 six and .pcrpkey (uki/base, uki/pcrsig), 262
// all of them (uki262x/sections, uki262x/profile). 0 is never seen. .pcrsig is not
// measured.
var unifiedSections = []unifiedSection{
	{".linux", 252, []string{"252", "257", "262"}},
	{".osrel", 252, []string{"252", "257", "262"}},
	{".cmdline", 252, []string{"252", "257", "262"}},
	{".initrd", 252, []string{"252", "257", "262"}},
	{".ucode", 256, []string{"262"}},
	{".splash", 252, []string{"257", "262"}}, // more257/splash, more262/splash
	{".dtb", 252, nil},
	{".uname", 254, []string{"252", "257", "262"}},
	{".sbat", 254, []string{"252", "257", "262"}},
	{".pcrpkey", 252, []string{"252", "257", "262"}}, // more257/stub252, uki/pcrsig
	{".profile", 257, []string{"262"}},
	// Measured only when the stub chooses one by the machine's hardware
	// (uki262x/sections: an .efifw that does not fit is not).
	{".dtbauto", 257, nil},
	{".hwids", 257, []string{"262"}},
	{".efifw", 258, nil},
}

type unifiedSection struct {
	name  string
	since int      // first version that measures it
	seen  []string // versions with which an image that has it was booted
}

// image is a unified kernel image that is followed.
type image struct {
	*program
	files    Files // where it is, and what belongs to it
	version  int
	sections []Section // of the profile that is booted, its own before the common ones
	options  string    // given by the loader
	cmdline  string    // what the kernel gets
}

func (m *image) section(name string) (File, bool) {
	for _, s := range m.sections {
		if s.Name == name && s.Size() > 0 {
			return s.File, true
		}
	}
	return nil, false
}

// startStub follows a unified kernel image. loader is the version of systemd-boot
// that started it, "" without one.
func (r *run) startStub(p *program, files Files, options, loader string) {
	m := &image{program: p, files: files, version: number(p.version), options: options}
	r.smbios(m.version)
	r.combination(m, loader)
	r.profile(m)
	r.stubSections(m)
	r.stubOptions(m)
	side := r.sidecars(m)
	r.innerKernel(m)
	r.finishStub(m, side)
}

// measuredTogether are the pairs of systemd-boot ("" for none) and stub that were
// booted: uki, uki262, uki262fw, combos.
var measuredTogether = [][2]string{
	{"252", "252"}, {"252", "257"}, {"252", "262"}, {"257", "252"}, {"257", "257"}, {"257", "262"}, {"262", "257"}, {"262", "262"},
	{"", "252"}, {"", "257"}, {"", "262"},
}

// combination refuses pairs that were not booted.
func (r *run) combination(m *image, loader string) {
	if !slices.Contains(measuredTogether, [2]string{loader, m.program.version}) {
		by := "systemd-boot " + loader
		if loader == "" {
			by = "the firmware"
		}
		r.unmeasured(fmt.Sprintf("a stub %s started by %s was not measured", m.program.version, by), fromEntry...)
	}
	if r.secureBoot && (m.version == 252 || loader == "252") {
		r.unknown("systemd 252 with Secure Boot was not measured", fromEntry...)
	}
}

// profile chooses the sections of the first profile; without profiles they are all
// (uki262x/profile: the first of two is booted, its sections come before the common
// ones).
func (r *run) profile(m *image) {
	all := m.Sections()
	var starts []int
	for i, s := range all {
		if s.Name == ".profile" {
			starts = append(starts, i)
		}
	}
	m.sections = all
	if len(starts) > 0 {
		end := len(all)
		if len(starts) > 1 {
			end = starts[1]
		}
		m.sections = slices.Concat(all[starts[0]:end], all[:starts[0]])
	}
	if len(starts) > 1 && m.version != 262 {
		r.unknown("several profiles were measured with a stub 262 only", 9, 11, 12)
	}
	r.repeated(m, starts)
}

// repeated refuses images in which a section stands twice without profiles between.
func (r *run) repeated(m *image, starts []int) {
	seen := map[string]bool{}
	for i, s := range m.Sections() {
		if slices.Contains(starts, i) {
			clear(seen)
		}
		if seen[s.Name] && strings.HasPrefix(s.Name, ".") && isUnified(s.Name) {
			r.unknown(fmt.Sprintf("%s has section %s twice", m.path, s.Name), fromEntry...)
		}
		seen[s.Name] = true
	}
}

func isUnified(name string) bool {
	return name == ".pcrsig" || slices.ContainsFunc(unifiedSections, func(u unifiedSection) bool { return u.name == name })
}

// stubSections gives PCR 11: for each section its name with NUL, then its bytes
// (all images; equal to systemd-measure).
func (r *run) stubSections(m *image) {
	for _, u := range unifiedSections {
		f, ok := m.section(u.name)
		if !ok {
			continue
		}
		if !slices.Contains(u.seen, m.program.version) {
			r.unknown(fmt.Sprintf("section %s was not measured with a stub %s", u.name, m.program.version), 11)
		}
		if m.version >= u.since {
			what := "section " + u.name
			r.add(known(11, sha256.Sum256([]byte(u.name+"\x00")), "name of "+what, m.path),
				Measurement{11, what, m.path, once(func() (Digest, error) { return digestOf(f) })})
		}
	}
}

// commandLine is the image's own command line. What the stub would change in it
// (control characters, blanks at the end) was not measured.
func (r *run) commandLine(p Program) string {
	f, ok := section(p, ".cmdline")
	if !ok {
		return ""
	}
	b, err := readText(f)
	text := string(b)
	if err != nil || !plainText(b) || strings.TrimSpace(text) != text {
		r.unknown("the image's command line has other characters than plain text, or blanks around it", 9, 12)
	}
	return text
}

// stubOptions decides on the command line. Options of the loader replace the
// image's own with Secure Boot off, and are measured (uki/sdboot252).
func (r *run) stubOptions(m *image) {
	m.cmdline = r.commandLine(onlySections{m.Program, m.sections})
	if m.options == "" {
		return
	}
	m.cmdline = m.options
	r.add(optionsMeasured(m.options, m.path))
}

// onlySections is a program with a choice of its sections.
type onlySections struct {
	Program
	list []Section
}

func (o onlySections) Sections() []Section { return o.list }

// innerKernel: a stub 252 or 257 has the kernel loaded by the firmware, which
// measures it with Secure Boot off (uki/base, uki/stub252); with Secure Boot on the
// stub's way around the check goes around the measurement too (ukisb/base). 262
// starts it by itself (uki262/base, uki262sb/base).
func (r *run) innerKernel(m *image) {
	f, ok := m.section(".linux")
	if !ok {
		r.unknown(m.path+" has no kernel", fromEntry...)
		return
	}
	if m.version >= 258 || r.secureBoot {
		return
	}
	inner, err := f.Program()
	if err != nil {
		r.unknown(fmt.Sprintf("%s: section .linux: %v", m.path, err), 4)
		return
	}
	r.add(Measurement{4, "section .linux", m.path, once(inner.Authenticode)})
}

// finishStub hands the kernel its command line and initrds.
func (r *run) finishStub(m *image, side *sidecarSet) {
	f, ok := m.section(".linux")
	if !ok {
		return
	}
	release, err := kernelRelease(f)
	if err != nil || release == "" {
		r.unknown(m.path+": section .linux is not a kernel for this machine", fromEntry...)
		return
	}
	if m.version >= 261 && !strings.Contains(m.cmdline, "console=") {
		// uki262x/nocons-hvc, nocons-vga, nocons-both: it depends on the devices.
		r.unknown("the command line names no console, and the stub may add the firmware's", 9)
	}
	parts := r.initrdParts(m, side)
	if n := len(parts); n > 1 && parts[n-1].Size()%4 != 0 {
		r.unknown("the size of the last initrd is not a multiple of 4", 9)
	}
	r.startKernel(&program{file: f, path: m.path, version: release}, m.cmdline, parts)
}

// initrdParts are the initrds that the stub passes: those of the entry, .ucode and
// .initrd of the image, archives of what lies beside it, archives of its own
// sections, the boot secret, initrds of addons (uki/pcrsig; uki262x/sections,
// sidecars, addons: the only order of all that gives PCR 9).
func (r *run) initrdParts(m *image, side *sidecarSet) []part {
	parts := slices.Clone(r.front)
	for _, name := range []string{".ucode", ".initrd"} {
		if f, ok := m.section(name); ok {
			parts = append(parts, part{"section " + name, f})
			if name == ".ucode" && m.version != 262 {
				r.unknown("section .ucode was measured with a stub 262 only", 9)
			}
		}
	}
	parts = append(parts, side.archives...)
	parts = append(parts, r.sectionArchives(m)...)
	if m.version >= 261 {
		if secret, ok := r.secretArchive(m); ok {
			parts = append(parts, secret)
		} else {
			r.unknown("the stub puts a secret into the initrd which is not known here", 9)
		}
	}
	return append(parts, side.initrds...)
}

// sectionArchives are the files below /.extra that the stub makes of sections: two
// with 252 (more257/stub252 has one of them), four with 257 and 262.
func (r *run) sectionArchives(m *image) []part {
	files := []struct{ section, name string }{{".pcrsig", "tpm2-pcr-signature.json"}, {".pcrpkey", "tpm2-pcr-public-key.pem"}, {".osrel", "os-release"}, {".profile", "profile"}}
	if m.version < 257 {
		files = files[:2]
	}
	var parts []part
	for _, x := range files {
		f, ok := m.section(x.section)
		if !ok {
			continue
		}
		if m.version < 257 && x.section == ".pcrsig" || x.section == ".profile" && m.version < 262 {
			r.unknown(fmt.Sprintf("the archive of section %s was not measured with a stub %s", x.section, m.program.version), 9)
		}
		parts = append(parts, extraArchive.of([]sidecar{{x.name, f}}))
	}
	return parts
}

// secretArchive holds the boot secret, if it is known and belongs to this image.
func (r *run) secretArchive(m *image) (part, bool) {
	s := r.m.BootSecret
	id, err := r.osID(m)
	if s == nil || err != nil || s.ID != id || m.files != r.esp {
		return part{}, false
	}
	mixin, ok := mixinOf(r.esp)
	if !ok || string(mixin) != string(s.Mixin) {
		return part{}, false
	}
	return secretArchive.of([]sidecar{{"boot-secret", memory(s.Secret[:])}}), true
}

// fileMixin is mixed into the boot secret.
const fileMixin = "/loader/boot-secret-mixin"

func mixinOf(esp Files) ([]byte, bool) {
	f, err := esp.Open(fileMixin)
	if err != nil {
		return nil, false
	}
	b, err := readText(f)
	return b, err == nil
}

// osID is the part of an image's .osrel that the boot secret depends on: IMAGE_ID=,
// else ID= (uki262x/otherid moves it, uki262x/version2 does not).
func (r *run) osID(m *image) (string, error) {
	text, err := sectionText(onlySections{m.Program, m.sections}, ".osrel")
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	for _, key := range []string{"IMAGE_ID", "ID"} {
		if values[key] != "" {
			return values[key], err
		}
	}
	return "linux", err
}

// BootSecretOf makes a boot secret of what the running system shows in
// /run/systemd/stub/boot-secret, for the image that was booted.
func BootSecretOf(secret [32]byte, esp Files, booted Target) (*BootSecret, error) {
	f, err := booted.Files.Open(booted.Path)
	if err != nil {
		return nil, err
	}
	p, err := identify(f, booted.Path)
	if err != nil {
		return nil, err
	}
	r := &run{Run: &Run{Unknown: map[int]string{}, Unmeasured: map[int]string{}}}
	m := &image{program: p}
	r.profile(m)
	id, err := r.osID(m)
	mixin, _ := mixinOf(esp)
	return &BootSecret{secret, id, mixin}, err
}

// Tags of the events that the kernel's EFI stub leaves in PCR 9 (Linux
// drivers/firmware/efi/libstub, "struct efi_tcg2_tagged_event").
const (
	tagOptions = 0x8f3b22ed
	tagInitrd  = 0x8f3b22ec
)

// utf16z is a text as a program's options are: UTF-16 with NUL.
func utf16z(s string) []byte { return efi.UTF16(s + "\x00") }
