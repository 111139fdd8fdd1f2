package bootchain

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/bootchain/pe"
	"luksmith/tokens/tpm2/eventlog"
)

// fixture is one boot of testdata: its log, what the TPM said, and the files of the
// ESP as far as they were kept.
type fixture struct {
	name    string // chain/state
	files   map[string][]byte
	chain   map[string][]byte // what belongs to the whole chain
	listing map[string]fixtureFile
	pcrs    map[int][]byte
	events  []eventlog.Event
	// edit changes .sdmagic and .sbat of programs; nil leaves them.
	edit func(text string) string
	// signer signed the programs of the fixture, "" the one of all fixtures.
	signer string
}

// fixtureFile is a line of files.tsv.
type fixtureFile struct {
	name         string
	size         int64
	sha256       string
	authenticode string
}

// loadChain reads the boots of a chain.
func loadChain(t testing.TB, name string) map[string]*fixture {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	boots, common := map[string]*fixture{}, map[string][]byte{}
	for _, f := range archive.Files {
		file, data := f.Name, f.Data
		if rest, ok := strings.CutSuffix(file, ".b64"); ok {
			file = rest
			if data, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(string(data), "\n", "")); err != nil {
				t.Fatalf("%s: %s: %v", name, f.Name, err)
			}
		}
		state, file, ok := strings.Cut(file, "/")
		if !ok {
			common[state] = data
			continue
		}
		if boots[state] == nil {
			boots[state] = &fixture{name: name + "/" + state, files: map[string][]byte{}, chain: common}
		}
		boots[state].files[file] = data
	}
	for _, b := range boots {
		b.parse(t)
	}
	return boots
}

func (f *fixture) parse(t testing.TB) {
	t.Helper()
	var err error
	if f.events, err = eventlog.Parse(f.files["eventlog.bin"]); err != nil {
		t.Fatalf("%s: %v", f.name, err)
	}
	f.pcrs = map[int][]byte{}
	for line := range strings.Lines(string(f.files["pcrs.txt"])) {
		w := strings.Fields(line)
		n, _ := strconv.Atoi(w[1])
		f.pcrs[n], _ = hex.DecodeString(w[2])
	}
	f.listing = map[string]fixtureFile{}
	for line := range strings.Lines(string(f.files["files.tsv"])) {
		w := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		size, _ := strconv.ParseInt(w[1], 10, 64)
		f.listing["/"+w[0]] = fixtureFile{w[0], size, w[2], w[3]}
	}
}

// machine is what the running system would know. The secret and the tables are
// those of the whole chain, and not those of every state in it: see differs.
func (f *fixture) machine(t testing.TB, secret bool) *chain.Machine {
	t.Helper()
	kernel, _, _ := strings.Cut(string(f.files["kernel.txt"]), " ")
	m := &chain.Machine{Events: f.events, Kernel: kernel}
	if b := f.dmi(t); b != nil {
		tables, err := efi.ParseSMBIOS(b)
		if err != nil {
			t.Fatal(err)
		}
		m.SMBIOS = tables
	}
	if text := f.chain["boot-secret"]; secret && len(text) > 0 && !strings.Contains("otherid nomixin t1uki", path.Base(f.name)) {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(b) != 32 {
			t.Fatalf("%s: boot secret %v", f.name, err)
		}
		image := f.image()
		if m.BootSecret, err = chain.BootSecretOf([32]byte(b), f.esp(), chain.Target{Files: f.esp(), Path: image}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// dmi are the SMBIOS tables. All machines with systemd 262 had the same, but those
// started with other ones.
func (f *fixture) dmi(t testing.TB) []byte {
	t.Helper()
	if strings.HasSuffix(f.name, "/smbios") || strings.HasSuffix(f.name, "/smbios1") {
		return nil
	}
	if b := f.chain["dmi.bin"]; b != nil || !strings.Contains(f.name, "262") {
		return b
	}
	for _, other := range loadChain(t, "uki262") {
		return other.chain["dmi.bin"]
	}
	return nil
}

// image is the unified kernel image on the ESP.
func (f *fixture) image() string {
	for name := range f.listing {
		if file, ok := strings.CutSuffix(name, "#.linux"); ok {
			return file
		}
	}
	return ""
}

func (f *fixture) esp() *fixtureESP { return &fixtureESP{f} }

// system is the fixture as the boot that is running, with its own files.
func (f *fixture) system(t testing.TB, secret bool) *System {
	return &System{Machine: f.machine(t, secret), ESP: f.esp(), PCRs: f.pcrs}
}

// fixtureESP is a chain.Files whose large files are digests.
type fixtureESP struct{ f *fixture }

func (e *fixtureESP) Open(name string) (chain.File, error) {
	for file, x := range e.f.listing {
		if strings.EqualFold(file, name) {
			return &fixtureContent{f: e.f, file: x, content: e.f.files["esp/"+x.name]}, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (e *fixtureESP) List(folder string) ([]string, error) {
	var names []string
	for file := range e.f.listing {
		rest, ok := strings.CutPrefix(strings.ToLower(file), strings.ToLower(folder)+"/")
		if !ok || strings.Contains(file, "#") {
			continue
		}
		rest = file[len(file)-len(rest):]
		rest, _, _ = strings.Cut(rest, "/")
		if !slices.Contains(names, rest) {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names, nil
}

// errNotKept: the fixture has the digest of a file and not its content.
var errNotKept = errors.New("the content is not part of the fixture")

// fixtureContent is a file, or a section, of a fixture.
type fixtureContent struct {
	f       *fixture
	file    fixtureFile
	content []byte // nil if it was not kept
}

func (c *fixtureContent) Size() int64 { return c.file.size }

func (c *fixtureContent) kept() bool { return int64(len(c.content)) == c.file.size }

func (c *fixtureContent) Head(n int) ([]byte, error) {
	if c.kept() {
		return c.content[:min(n, len(c.content))], nil
	}
	if release := kernelReleases[c.file.authenticode]; release != "" {
		b := make([]byte, 0x300)
		copy(b[0x202:], "HdrS")
		b[0x20f] = 0x00
		copy(b[0x20e:], "\x80\x00")
		copy(b[0x280:], release+" (lab)\x00")
		return b[:min(n, len(b))], nil
	}
	return nil, errNotKept
}

func (c *fixtureContent) SHA256() (d chain.Digest, err error) {
	b, err := hex.DecodeString(c.file.sha256)
	copy(d[:], b)
	return d, err
}

// Hash adds the content, or goes from one state of the hash to the one that
// follows, where that was kept instead of two megabytes of an initrd.
func (c *fixtureContent) Hash(h hash.Hash) error {
	if c.kept() {
		h.Write(c.content)
		return nil
	}
	key := hex.EncodeToString(h.Sum(nil)) + " " + c.file.sha256
	state, ok := hashStates[key]
	if !ok {
		return errNotKept
	}
	return h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

func (c *fixtureContent) Program() (chain.Program, error) {
	if c.file.authenticode == "-" || c.file.authenticode == "" {
		return nil, pe.ErrFormat
	}
	return &fixtureProgram{c}, nil
}

// fixtureProgram is a program of a fixture.
type fixtureProgram struct{ *fixtureContent }

func (p *fixtureProgram) Authenticode() (d chain.Digest, err error) {
	b, err := hex.DecodeString(p.file.authenticode)
	copy(d[:], b)
	return d, err
}

// Signers are not in the fixtures: in each chain with Secure Boot, one certificate
// signed what has the same role.
func (p *fixtureProgram) Signers() ([]pe.Signer, error) {
	return []pe.Signer{{Issuer: "of the chain" + p.f.signer, Serial: "1"}}, nil
}

func (p *fixtureProgram) Sections() []chain.Section {
	var list []chain.Section
	for _, name := range []string{".sdmagic", ".sbat"} {
		if text := loaderSections[p.file.authenticode+name]; text != "" {
			list = append(list, fixtureSection(p.f, name, []byte(text)))
		}
	}
	for file, x := range p.f.listing {
		name, ok := strings.CutPrefix(file, "/"+p.file.name+"#")
		if !ok {
			continue
		}
		content := p.f.files["sections/"+path.Base(p.file.name)+name]
		if content == nil {
			content = p.f.files["sections/"+strings.TrimPrefix(name, ".")]
		}
		list = append(list, chain.Section{Name: name, File: &fixtureContent{p.f, x, content}})
	}
	if magic := p.magic(); magic != "" {
		list = append(list, fixtureSection(p.f, ".sdmagic", []byte(magic)))
	}
	return list
}

// magic is the .sdmagic of an image or an addon, whose version is in .sbat.
func (p *fixtureProgram) magic() string {
	if strings.HasSuffix(p.file.name, ".addon.efi") {
		return "#### LoaderInfo: systemd-addon 262.1-1 ####"
	}
	if _, ok := p.f.listing["/"+p.file.name+"#.linux"]; !ok {
		return ""
	}
	for line := range strings.Lines(string(p.f.files["sections/sbat"])) {
		if w := strings.Split(line, ","); len(w) > 4 && (w[0] == "systemd-stub" || w[0] == "systemd") {
			return "#### LoaderInfo: systemd-stub " + w[4] + " ####"
		}
	}
	return ""
}

func fixtureSection(f *fixture, name string, content []byte) chain.Section {
	if f.edit != nil {
		content = []byte(f.edit(string(content)))
	}
	sum := sha256.Sum256(content)
	return chain.Section{Name: name, File: &fixtureContent{f, fixtureFile{name, int64(len(content)), hex.EncodeToString(sum[:]), "-"}, content}}
}

// kernelReleases are those of the kernels of the fixtures, by Authenticode digest.
var kernelReleases = map[string]string{
	"5f21ff2c0d5d899842b28a8b19901ba72cf7a7ab93c02a77fadc6ff72be85b31": "6.1.0-56-cloud-amd64",
	"a20646051d119ba9f5e4f6759d6bb1395157aa7d69bc39fa42e3e5d8cb94c56b": "6.12.117+deb13-cloud-amd64",
	"7a9f212b48e8c2878cbbca4c0eda886d66c3b978bfd709ec4a5f2149fd334e1f": "6.12.118+deb13-cloud-amd64",
	"cbe752231bd88709d9750332fc116f055ea3568204744ab47b2af15c1c83b25e": "7.2.13+deb14-cloud-amd64",
}

const sbatHead = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"

// loaderSections are sections of the loaders, by Authenticode digest.
var loaderSections = map[string]string{
	"7843e376e57323bcdfebcffc8d5109eb39721c83d8bedab1dfd6431596875c2c.sdmagic": "#### LoaderInfo: systemd-boot 252.39-1~deb12u2 ####\x00",
	"937f1f3b0b3fed2034f1fddcc68c835f3e4ba190143f79693816e5a9d1718da5.sdmagic": "#### LoaderInfo: systemd-boot 257.13-1~deb13u1 ####",
	"31ff5f8b505a52fd88894274f87bf686dc588c9370fc160a293459d726f28326.sdmagic": "#### LoaderInfo: systemd-boot 262.1-1 ####",
	"80a66d53a945d2286fcadd780fae1c225aa732079cd67b5225dc78aaab4e2ff8.sbat":    sbatHead + "shim,4,UEFI shim,shim,1,https://github.com/rhboot/shim\nshim.debian,1,Debian,shim,16.1,https://tracker.debian.org/pkg/shim\n",
	"f4166948f7adafa71e45c7ca5d30d97f78f382ecf1e3c8e4767b1ec1770cd52f.sbat":    sbatHead + "shim,4,UEFI shim,shim,1,https://github.com/rhboot/shim\nshim.debian,1,Debian,shim,16.1,https://tracker.debian.org/pkg/shim\n",
	"4723da70afd558617a87dadf9087ca335822c60e5f2aec0135fcc0122d3b96ff.sbat":    sbatHead + "grub,7,Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/\ngrub.debian,5,Debian,grub2,2.12-9+deb13u4,https://tracker.debian.org/pkg/grub2\n\x00\x00",
	"a68f6d71ebddaa19751ff8d729f67d11b0df8e4c49400c3e7e90de16119e1265.sbat":    sbatHead + "grub,3,Free Software Foundation,grub,2.06,https://www.gnu.org/software/grub/\ngrub.debian,4,Debian,grub2,2.06-13+deb12u2,https://tracker.debian.org/pkg/grub2\n\x00\x00",
}

// hashStates are states of SHA-256 after large initrds: see testdata/README.md.
var hashStates = loadStates()

func loadStates() map[string][]byte {
	states := map[string][]byte{}
	b, err := os.ReadFile("testdata/sha256-states.tsv")
	if err != nil {
		return states
	}
	for line := range bytes.Lines(b) {
		w := strings.Split(strings.TrimSpace(string(line)), "\t")
		if state, err := base64.StdEncoding.DecodeString(w[2]); err == nil {
			states[w[0]+" "+w[1]] = state
		}
	}
	return states
}
