package chain

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"luksmith/tokens/tpm2/bootchain/bls"
)

// sidecar is a file that the stub hands to the initrd.
type sidecar struct {
	name string
	File
}

// sidecarSet is what lies beside an image and on its partition for it.
type sidecarSet struct {
	archives []part // made of credentials, sysexts, confexts
	initrds  []part // of addons
}

// sidecars adds what addons, credentials and extension images beside the image, and on
// its partition, cause. It was measured with stubs 257 and 262 (more257/addons and
// sidecars; uki262x/addons, sidecars, smbios; uki262sb/addons), and on the extended boot
// partition with 257 (e2e, TestImageOnTheExtendedBootPartition).
func (r *run) sidecars(m *image) *sidecarSet {
	folder, ok := r.extraFolder(m)
	if !ok {
		return &sidecarSet{}
	}
	set := &sidecarSet{}
	r.addons(m, folder, set)
	for _, k := range sidecarKinds {
		r.sidecarKind(m, k, folder, set)
	}
	if names, err := m.files.List("/loader/extensions"); err != nil || len(names) > 0 {
		r.unknown("what the stub makes of /loader/extensions was not measured", 9, 12, 13)
	}
	return set
}

// extraFolder is the folder of the files for an image. Whether the stub looks under
// a name with boot counter or without was not measured: if there is either, nothing
// can be told.
func (r *run) extraFolder(m *image) (folder string, ok bool) {
	folder = m.path + ".extra.d"
	id, counter, suffix := bls.SplitName(path.Base(m.path))
	if counter == nil {
		return folder, true
	}
	for _, f := range []string{folder, path.Join(path.Dir(m.path), id+suffix+".extra.d")} {
		if names, err := m.files.List(f); err != nil || len(names) > 0 {
			r.unknown("files beside an image with a boot counter were not measured", fromEntry...)
			return "", false
		}
	}
	return folder, true
}

// addons are programs without code: the firmware measures each when the stub loads
// it, first those in /loader/addons, then the image's own, sorted. Their command
// lines are appended and measured as one, then the initrds, one event each.
func (r *run) addons(m *image, folder string, set *sidecarSet) {
	var words []string
	var initrds []part
	count := 0
	for _, place := range []string{"/loader/addons", folder} {
		names, err := r.sidecarNames(m, place, ".addon.efi")
		if err != nil {
			r.unknown(missing(place, err), fromEntry...)
		}
		for _, n := range names {
			r.addon(m, place+"/"+n, &words, &initrds)
			count++
		}
	}
	if count > 0 && (m.version < 257 || m.version < 262 && (r.secureBoot || len(initrds) > 0)) {
		r.unknown("such addons were not measured with a stub "+m.program.version, fromEntry...)
	}
	if len(words) > 0 {
		text := strings.Join(words, " ")
		r.add(optionsMeasured(text, "addons"))
		m.cmdline = strings.TrimSpace(m.cmdline + " " + text)
	}
	r.smbiosOptions(m, len(words) > 0)
	for _, p := range initrds {
		r.add(Measurement{12, "initrd", p.name, once(p.digest)})
	}
	set.initrds = initrds
}

// addonSections are the sections of addons that were measured.
var addonSections = []string{".cmdline", ".initrd", ".uname", ".sbat", ".sdmagic", ".osrel"}

func (r *run) addon(m *image, file string, words *[]string, initrds *[]part) {
	a := r.open(m.files, file, "addon "+path.Base(file))
	if a == nil {
		return
	}
	r.addonKernel(m, a)
	for _, s := range a.Sections() {
		if isUnified(s.Name) && !slices.Contains(addonSections, s.Name) {
			r.unknown(fmt.Sprintf("%s: an addon with section %s was not measured", file, s.Name), fromEntry...)
		}
	}
	if text := r.commandLine(a); text != "" {
		*words = append(*words, text)
	}
	if f, ok := section(a, ".initrd"); ok {
		*initrds = append(*initrds, part{file, f})
	}
}

// addonKernel: an addon for the kernel of another release is loaded, and passed over
// (systemd 257 src/boot/stub.c, load_addons).
func (r *run) addonKernel(m *image, a *program) {
	wants, err := sectionText(a, ".uname")
	has, err2 := sectionText(onlySections{m.Program, m.sections}, ".uname")
	if err != nil || err2 != nil || wants != "" && has != "" && wants != has {
		r.unknown(fmt.Sprintf("%s is for Linux %s, which was not measured with one for another", a.path, wants), 9, 12)
	}
}

// sidecarNames are the files in a folder that the stub looks at. It passes over names
// that are not ASCII (systemd 257 src/boot/cpio.c, pack_cpio), which was not measured.
func (r *run) sidecarNames(m *image, folder, suffix string) ([]string, error) {
	names, err := listWith(m.files, folder, suffix)
	for _, n := range names {
		if strings.ContainsFunc(n, func(c rune) bool { return c > unicode.MaxASCII }) {
			r.unknown(folder+"/"+n+": a name like this was not measured", fromEntry...)
		}
	}
	return names, err
}

// smbiosOptions are options of an SMBIOS string (uki262x/smbios: one string, no
// addon, Secure Boot off).
func (r *run) smbiosOptions(m *image, addons bool) {
	list := r.extraOptions("io.systemd.stub.kernel-cmdline-extra=")
	if len(list) == 0 || m.version < 254 {
		return
	}
	if m.version != 262 || r.secureBoot || addons || len(list) > 1 || !plainText([]byte(list[0])) {
		r.unknown("options from SMBIOS strings were measured with a stub 262, one string, no addon, and without Secure Boot only", 9, 12)
	}
	r.add(known(12, sha256.Sum256(utf16z(list[0])), "options", "the firmware's SMBIOS strings"))
	m.cmdline = strings.TrimSpace(m.cmdline + " " + list[0])
}

// sidecarKind is a kind of files that the stub packs into an archive.
type sidecarKind struct {
	what    string
	folder  string // "" for the one beside the image
	suffix  string
	not     string // longer suffix that is another kind
	archive *archive
	pcr     int
}

// sidecarKinds in the order of the archives and of their events (uki262x/sidecars).
var sidecarKinds = []sidecarKind{
	{"credentials", "", ".cred", "", &credentialArchive, 12},
	{"global credentials", "/loader/credentials", ".cred", "", &globalArchive, 12},
	{"system extensions", "", ".raw", ".confext.raw", &sysextArchive, 13},
	{"configuration extensions", "", ".confext.raw", "", &confextArchive, 12},
}

func (r *run) sidecarKind(m *image, k sidecarKind, beside string, set *sidecarSet) {
	folder := k.folder
	if folder == "" {
		folder = beside
	}
	names, err := r.sidecarNames(m, folder, k.suffix)
	if err != nil {
		r.unknown(missing(folder, err), fromEntry...)
	}
	var files []sidecar
	for _, n := range names {
		if k.not != "" && strings.HasSuffix(strings.ToLower(n), k.not) {
			continue
		}
		if k.suffix == ".raw" && !strings.HasSuffix(strings.ToLower(n), ".sysext.raw") {
			r.unknown(folder+"/"+n+": an extension without .sysext in its name was not measured", 9, 13)
		}
		f, err := m.files.Open(folder + "/" + n)
		if err != nil {
			r.unknown(missing(folder+"/"+n, err), fromEntry...)
			continue
		}
		files = append(files, sidecar{n, f})
	}
	if len(files) == 0 {
		return
	}
	if m.version < 257 || r.secureBoot {
		r.unknown(k.what+" were measured with stubs 257 and 262 and without Secure Boot only", 9, 12, 13)
	}
	p := k.archive.of(files)
	set.archives = append(set.archives, p)
	r.add(Measurement{k.pcr, k.what, folder, once(p.digest)})
}
