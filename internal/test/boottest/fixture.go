// Package boottest has the event logs of real boots in tokens/tpm2/bootchain/testdata as
// machines that were booted, and makes folders that look like one.
package boottest

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
	"sync"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/bootchain/pe"
	"luksmith/tokens/tpm2/eventlog"
)

// Boot is one boot of testdata: its log, what the TPM said, and the files of the
// ESP as far as they were kept.
type Boot struct {
	Name    string // chain/state
	Files   map[string][]byte
	Chain   map[string][]byte // what belongs to the whole chain
	Listing map[string]File
	PCRs    map[int][]byte
	Events  []eventlog.Event
	// Edit changes .sdmagic and .sbat of programs; nil leaves them.
	Edit func(text string) string
	// Signer signed the programs of the boot, "" the one of all boots.
	Signer string

	folder string
}

// File is a line of files.tsv.
type File struct {
	Name         string
	Size         int64
	SHA256       string
	Authenticode string
}

// Load reads the boots of a chain, by their names, from the folder testdata of
// tokens/tpm2/bootchain.
func Load(t testing.TB, folder, name string) map[string]*Boot {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join(folder, name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	boots, common := map[string]*Boot{}, map[string][]byte{}
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
			boots[state] = &Boot{Name: name + "/" + state, Files: map[string][]byte{}, Chain: common, folder: folder}
		}
		boots[state].Files[file] = data
	}
	for _, b := range boots {
		b.parse(t)
	}
	return boots
}

func (f *Boot) parse(t testing.TB) {
	t.Helper()
	var err error
	if f.Events, err = eventlog.Parse(f.Files["eventlog.bin"]); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	f.PCRs = map[int][]byte{}
	for line := range strings.Lines(string(f.Files["pcrs.txt"])) {
		w := strings.Fields(line)
		n, _ := strconv.Atoi(w[1])
		f.PCRs[n], _ = hex.DecodeString(w[2])
	}
	f.Listing = map[string]File{}
	for line := range strings.Lines(string(f.Files["files.tsv"])) {
		w := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		size, _ := strconv.ParseInt(w[1], 10, 64)
		f.Listing["/"+w[0]] = File{w[0], size, w[2], w[3]}
	}
}

// Machine is what the running system would know. The secret and the tables are
// those of the whole chain, and not those of every state in it: see differs.
func (f *Boot) Machine(t testing.TB, secret bool) *chain.Machine {
	t.Helper()
	kernel, _, _ := strings.Cut(string(f.Files["kernel.txt"]), " ")
	m := &chain.Machine{Events: f.Events, Kernel: kernel}
	if b := f.dmi(t); b != nil {
		tables, err := efi.ParseSMBIOS(b)
		if err != nil {
			t.Fatal(err)
		}
		m.SMBIOS = tables
	}
	if text := f.Chain["boot-secret"]; secret && len(text) > 0 && !strings.Contains("otherid nomixin t1uki", path.Base(f.Name)) {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(b) != 32 {
			t.Fatalf("%s: boot secret %v", f.Name, err)
		}
		image := f.image()
		if m.BootSecret, err = chain.BootSecretOf([32]byte(b), f.ESP(), chain.Target{Files: f.ESP(), Path: image}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// dmi are the SMBIOS tables. All machines with systemd 262 had the same, but those
// started with other ones.
func (f *Boot) dmi(t testing.TB) []byte {
	t.Helper()
	if strings.HasSuffix(f.Name, "/smbios") || strings.HasSuffix(f.Name, "/smbios1") {
		return nil
	}
	if b := f.Chain["dmi.bin"]; b != nil || !strings.Contains(f.Name, "262") {
		return b
	}
	for _, other := range Load(t, f.folder, "uki262") {
		return other.Chain["dmi.bin"]
	}
	return nil
}

// image is the unified kernel image on the ESP.
func (f *Boot) image() string {
	for name := range f.Listing {
		if file, ok := strings.CutSuffix(name, "#.linux"); ok {
			return file
		}
	}
	return ""
}

// ESP are the files of the EFI system partition.
func (f *Boot) ESP() chain.Files { return &fixtureESP{f} }

// fixtureESP is a chain.Files whose large files are digests.
type fixtureESP struct{ f *Boot }

func (e *fixtureESP) Open(name string) (chain.File, error) {
	for file, x := range e.f.Listing {
		if strings.EqualFold(file, name) {
			return &fixtureContent{f: e.f, file: x, content: e.f.Files["esp/"+x.Name]}, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

func (e *fixtureESP) List(folder string) ([]string, error) {
	var names []string
	for file := range e.f.Listing {
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

// ErrNotKept: the fixture has the digest of a file and not its content.
var ErrNotKept = errors.New("the content is not part of the fixture")

// fixtureContent is a file, or a section, of a fixture.
type fixtureContent struct {
	f       *Boot
	file    File
	content []byte // nil if it was not kept
}

func (c *fixtureContent) Size() int64 { return c.file.Size }

func (c *fixtureContent) kept() bool { return int64(len(c.content)) == c.file.Size }

func (c *fixtureContent) Head(n int) ([]byte, error) {
	if c.kept() {
		return c.content[:min(n, len(c.content))], nil
	}
	if release := kernelReleases[c.file.Authenticode]; release != "" {
		b := make([]byte, 0x300)
		copy(b[0x202:], "HdrS")
		b[0x20f] = 0x00
		copy(b[0x20e:], "\x80\x00")
		copy(b[0x280:], release+" (lab)\x00")
		return b[:min(n, len(b))], nil
	}
	return nil, ErrNotKept
}

func (c *fixtureContent) SHA256() (d chain.Digest, err error) {
	b, err := hex.DecodeString(c.file.SHA256)
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
	key := hex.EncodeToString(h.Sum(nil)) + " " + c.file.SHA256
	state, ok := hashStates(c.f.folder)[key]
	if !ok {
		return ErrNotKept
	}
	return h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

func (c *fixtureContent) Program() (chain.Program, error) {
	if c.file.Authenticode == "-" || c.file.Authenticode == "" {
		return nil, pe.ErrFormat
	}
	return &fixtureProgram{c}, nil
}

// fixtureProgram is a program of a fixture.
type fixtureProgram struct{ *fixtureContent }

func (p *fixtureProgram) Authenticode() (d chain.Digest, err error) {
	b, err := hex.DecodeString(p.file.Authenticode)
	copy(d[:], b)
	return d, err
}

// Signers are not in the fixtures: in each chain with Secure Boot, one certificate
// signed what has the same role.
func (p *fixtureProgram) Signers() ([]pe.Signer, error) {
	return []pe.Signer{{Issuer: "of the chain" + p.f.Signer, Serial: "1"}}, nil
}

func (p *fixtureProgram) Sections() []chain.Section {
	var list []chain.Section
	for _, name := range []string{".sdmagic", ".sbat"} {
		if text := loaderSections[p.file.Authenticode+name]; text != "" {
			list = append(list, fixtureSection(p.f, name, []byte(text)))
		}
	}
	for file, x := range p.f.Listing {
		name, ok := strings.CutPrefix(file, "/"+p.file.Name+"#")
		if !ok {
			continue
		}
		content := p.f.Files["sections/"+path.Base(p.file.Name)+name]
		if content == nil {
			content = p.f.Files["sections/"+strings.TrimPrefix(name, ".")]
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
	if strings.HasSuffix(p.file.Name, ".addon.efi") {
		return "#### LoaderInfo: systemd-addon 262.1-1 ####"
	}
	if _, ok := p.f.Listing["/"+p.file.Name+"#.linux"]; !ok {
		return ""
	}
	for line := range strings.Lines(string(p.f.Files["sections/sbat"])) {
		if w := strings.Split(line, ","); len(w) > 4 && (w[0] == "systemd-stub" || w[0] == "systemd") {
			return "#### LoaderInfo: systemd-stub " + w[4] + " ####"
		}
	}
	return ""
}

func fixtureSection(f *Boot, name string, content []byte) chain.Section {
	if f.Edit != nil {
		content = []byte(f.Edit(string(content)))
	}
	sum := sha256.Sum256(content)
	return chain.Section{Name: name, File: &fixtureContent{f, File{name, int64(len(content)), hex.EncodeToString(sum[:]), "-"}, content}}
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
func hashStates(folder string) map[string][]byte {
	statesOnce.Do(func() { states = loadStates(folder) })
	return states
}

var (
	statesOnce sync.Once
	states     map[string][]byte
)

func loadStates(folder string) map[string][]byte {
	states := map[string][]byte{}
	b, err := os.ReadFile(filepath.Join(folder, "sha256-states.tsv"))
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

// Variables is efivarfs as the log of a boot says, with some changed.
func (f *Boot) Variables(changed map[string][]byte) fstest.MapFS {
	vars := fstest.MapFS{}
	for _, e := range f.Events {
		if name, guid, content, ok := e.Variable(); ok && e.Type != eventlog.TypeAuthority {
			if now, ok := changed[name]; ok {
				content = now
			}
			vars[name+"-"+guid] = Variable(content)
		}
	}
	return vars
}

// Variable is a variable's file: attributes, then the content.
func Variable(content []byte) *fstest.MapFile {
	return &fstest.MapFile{Data: append([]byte{7, 0, 0, 0}, content...)}
}
