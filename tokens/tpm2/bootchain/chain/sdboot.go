package chain

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"path"
	"strconv"
	"strings"

	"luksmith/tokens/tpm2/bootchain/bls"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// fromEntry are the PCRs that depend on the entry that is booted.
var fromEntry = []int{4, 9, 11, 12, 13}

// startSDBoot follows systemd-boot to the target.
func (r *run) startSDBoot(p *program) {
	version := number(p.version)
	if r.shim && version < 257 {
		r.unknown("systemd-boot "+p.version+" started by a shim was not measured", 4, 9, 12)
	}
	r.drivers()
	r.enrollsKeys()
	r.smbios(version)
	r.loaderConf(version)
	if strings.EqualFold(path.Ext(r.target.Path), ".efi") {
		r.bootImage(p)
		return
	}
	f, err := r.target.Files.Open(r.target.Path)
	if err != nil {
		r.unknown(missing(r.target.Path, err), fromEntry...)
		return
	}
	text, err := readText(f)
	var e *bls.Entry
	if err == nil {
		e, err = bls.Parse(text)
	}
	if err != nil {
		r.unknown(fmt.Sprintf("%s: %v", r.target.Path, err), fromEntry...)
		return
	}
	r.bootEntry(e, p)
}

// number is the version of a program of systemd's, 0 when it is not plain.
func number(version string) int {
	n, _ := strconv.Atoi(version)
	return n
}

// loaderConf is measured into PCR 5 since 255, if there is one (uki/base with 257;
// uki/sdboot252 without; type1-262/base with 262).
func (r *run) loaderConf(version int) {
	const file = "/loader/loader.conf"
	if version < 255 || !exists(r.esp, file) {
		return
	}
	f, err := r.esp.Open(file)
	if err != nil {
		r.unknown(missing(file, err), 5)
		return
	}
	r.add(Measurement{5, "content", file, once(func() (Digest, error) { return digestOf(f) })})
}

// bootImage starts a unified kernel image. systemd-boot 252 passes the image's own
// command line as an argument, which it measures and the stub measures again
// (uki/sdboot252); 257 and 262 pass nothing (uki/base, uki262/base).
func (r *run) bootImage(loader *program) {
	p := r.open(r.target.Files, r.target.Path, "entry")
	if p == nil {
		return
	}
	if p.kind != Stub {
		r.unknown(r.target.Path+" is not a unified kernel image", fromEntry...)
		return
	}
	if r.shim {
		r.unknown("a unified kernel image started through a shim was not measured", fromEntry...)
	}
	options := ""
	if number(loader.version) < 255 {
		options = r.commandLine(p)
		if options != "" {
			r.add(optionsMeasured(options, p.path))
		}
	}
	r.startStub(p, r.target.Files, options, loader.version)
}

// optionsMeasured is the event of options in PCR 12: UTF-16 with the NUL at its end
// (type1/base, uki262x/smbios).
func optionsMeasured(text, file string) Measurement {
	return known(12, sha256.Sum256(efi.UTF16(text+"\x00")), "options", file)
}

// bootEntry starts what a type #1 entry says.
func (r *run) bootEntry(e *bls.Entry, loader *program) {
	file := r.target.Path
	if len(e.Other) > 0 {
		r.unknown(fmt.Sprintf("%s: what %q does was not measured", file, e.Other[0]), fromEntry...)
	}
	if e.Linux != "" && e.UKI != "" || len(e.Extra) > 0 && e.UKI == "" {
		r.unknown(file+": both a kernel and an image, or files for no image", fromEntry...)
	}
	for _, p := range append(append([]string{e.Linux, e.UKI}, e.Initrd...), e.Extra...) {
		if p != "" && (p[0] != '/' || path.Clean(p) != p || strings.ContainsAny(p, `\`)) {
			r.unknown(fmt.Sprintf("%s: path %q is not plain", file, p), fromEntry...)
			return
		}
	}
	switch {
	case e.UKI != "":
		r.bootUKIEntry(e, loader)
	case e.Linux != "":
		r.bootKernelEntry(e, loader)
	default:
		r.unknown(file+" names no kernel", fromEntry...)
	}
}

// bootUKIEntry starts the image of an entry. Credentials of the entry come before
// the image's own initrd, and systemd-boot measures their archive (uki262x/t1uki,
// the only boot of this kind).
func (r *run) bootUKIEntry(e *bls.Entry, loader *program) {
	file := r.target.Path
	p := r.open(r.target.Files, e.UKI, "entry")
	if p == nil {
		return
	}
	if p.kind != Stub || p.version != "262" || loader.version != "262" || r.shim || r.secureBoot {
		r.unknown(file+": an image named by an entry was measured with systemd 262 and without Secure Boot only", fromEntry...)
	}
	if len(e.Options) > 0 || len(e.Initrd) > 0 {
		r.unknown(file+": options or an initrd beside an image were not measured", fromEntry...)
	}
	if archive, ok := r.credentials(e); ok {
		r.front = []part{archive}
		r.add(Measurement{12, "credentials", file, once(archive.digest)})
	}
	r.startStub(p, r.target.Files, "", loader.version)
}

// credentials makes the archive of an entry's extra files.
func (r *run) credentials(e *bls.Entry) (part, bool) {
	var files []sidecar
	for _, x := range e.Extra {
		f, err := r.target.Files.Open(x)
		if err != nil || !strings.HasSuffix(x, ".cred") {
			r.unknown(r.target.Path+": "+x+" was not measured", fromEntry...)
			return part{}, false
		}
		files = append(files, sidecar{path.Base(x), f})
	}
	return credentialArchive.of(files), len(files) > 0
}

// bootKernelEntry starts a kernel with initrds and options, which are measured into
// PCR 12 together (type1/base with 252, type1/sdboot257, type1-262/twoinitrds).
func (r *run) bootKernelEntry(e *bls.Entry, loader *program) {
	p := r.open(r.target.Files, e.Linux, "entry")
	if p == nil {
		return
	}
	if p.kind != Kernel {
		r.unknown(e.Linux+" is not a kernel, or one for another machine", fromEntry...)
		return
	}
	if r.extraOptions("io.systemd.boot.kernel-cmdline-extra=") != nil && number(loader.version) >= 254 {
		r.unknown("SMBIOS adds options, which was not measured with entries of this kind", 9, 12)
	}
	if len(e.Options) == 0 || strings.Join(e.Options, "") == "" {
		r.unknown(r.target.Path+": an entry without options was not measured", 9, 12)
	}
	words := []string{}
	for _, i := range e.Initrd {
		words = append(words, "initrd="+strings.ReplaceAll(i, "/", `\`))
	}
	options := strings.Join(append(words, e.Options...), " ")
	r.add(optionsMeasured(options, r.target.Path))
	r.startKernel(p, options, r.entryInitrds(e, loader))
}

// entryInitrds are the initrds of an entry, one after the other, each padded to 4
// but the last (type1-262/twoinitrds and twoinitrds2 with 262, sdboot257 there with
// 257; more262/pad252 and pad257 with a single one of any size). With 252 no second one
// was seen.
func (r *run) entryInitrds(e *bls.Entry, loader *program) []part {
	var parts []part
	size := int64(0)
	for _, i := range e.Initrd {
		f, err := r.target.Files.Open(i)
		if err != nil {
			r.unknown(missing(i, err), 9)
			return nil
		}
		if number(loader.version) < 257 && len(e.Initrd) > 1 {
			r.unknown("systemd-boot "+loader.version+": more than one initrd was not measured", 9)
		}
		parts = append(parts, part{i, f})
		size += f.Size()
	}
	if len(parts) > 0 && size == 0 {
		// The loader registers none (systemd 257 src/boot/initrd.c, initrd_register), and
		// the kernel looks for the one of its options.
		r.unknown(r.target.Path+": its initrd is empty", 9)
	}
	return parts
}

// smbiosType is the type of the SMBIOS structure that a tagged event in PCR 1 is about,
// 0 for other events (systemd docs/TPM2_PCR_MEASUREMENTS.md).
func smbiosType(tag uint32) byte {
	switch tag {
	case 0xd5cb7cbc:
		return efi.SMBIOSSystem
	case 0xe0d47bc8:
		return efi.SMBIOSBaseboard
	case 0xc0b3bd23:
		return efi.SMBIOSOEMStrings
	}
	return 0
}

// smbios is measured by the first of systemd-boot and stub since 261 (uki262 and
// type1-262: by systemd-boot; uki262fw: by the stub; type1-262/sdboot257: by none).
// The events of the running boot are repeated if it has some, else the tables are
// read.
func (r *run) smbios(version int) {
	if version < 261 || r.smbiosDone {
		return
	}
	r.smbiosDone = true
	logged := false
	for _, e := range r.m.Events {
		if id, _, ok := e.Tag(); ok && e.PCR == 1 && smbiosType(id) != 0 {
			r.add(kept(e))
			logged = true
		}
	}
	if logged {
		return
	}
	if r.m.SMBIOS == nil {
		r.unknown("the SMBIOS tables, which are measured from now on, are not known", 1)
	}
	for _, kind := range []byte{efi.SMBIOSSystem, efi.SMBIOSBaseboard, efi.SMBIOSOEMStrings} {
		if s, ok := r.structure(kind); ok {
			r.add(known(1, sha256.Sum256(s.Measured()), fmt.Sprintf("SMBIOS type %d", kind), "the firmware's tables"))
		}
	}
}

func (r *run) structure(kind byte) (efi.Structure, bool) {
	for _, s := range r.m.SMBIOS {
		if s.Type == kind {
			return s, true
		}
	}
	return efi.Structure{}, false
}

// extraOptions are the options that strings of SMBIOS type 11 add. When the tables
// are not known but the log shows that there are strings, it marks what depends on
// them.
func (r *run) extraOptions(prefix string) []string {
	if r.m.SMBIOS == nil && r.hasOEMStrings() {
		r.unknown("SMBIOS strings may add options, and the tables are not known", 9, 12)
	}
	var list []string
	for _, s := range r.m.SMBIOS {
		if s.Type != efi.SMBIOSOEMStrings {
			continue
		}
		for _, text := range s.Strings() {
			if rest, ok := strings.CutPrefix(text, prefix); ok {
				list = append(list, rest)
			}
		}
	}
	return list
}

func (r *run) hasOEMStrings() bool {
	for _, e := range r.m.Events {
		if id, _, ok := e.Tag(); ok && e.PCR == 1 && smbiosType(id) == efi.SMBIOSOEMStrings {
			return true
		}
	}
	return false
}

// isTag reports whether an event has a tag.
func isTag(e eventlog.Event, id uint32) bool {
	n, _, ok := e.Tag()
	return ok && n == id
}

// plainText reports whether a text survives every conversion on its way to the
// kernel unchanged.
func plainText(b []byte) bool {
	return !bytes.ContainsFunc(b, func(c rune) bool { return c < ' ' || c > '~' })
}
