package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
)

// update is a step in the life of a machine: something changes while a system runs,
// follow is called, and the machine is restarted.
type update struct {
	name string
	does func(m *updating)
	// What follow ends with and says; nobody calls it if says is "".
	status int
	says   string
	hook   bool // it is called as the hooks of packages do
	crash  bool // the power goes, in place of a restart
	// What is booted then, by the text of its initrd, and whether the TPM opens the
	// volume. If not, what cryptsetup-unit says, and with which status a call of
	// follow with the key file ends.
	boots  string
	closed string
	after  int
	peer   string // version of systemd that opens the volume too
}

// TestUpdatesOfFilesInARow takes a machine whose kernels and initrds are files through
// the table of docs/updates.md. Secure Boot is off.
func TestUpdatesOfFilesInARow(t *testing.T) { newUpdating(t, false, false).goThrough(updates()) }

// TestUpdatesOfImagesInARow does so with unified kernel images, and Secure Boot on.
func TestUpdatesOfImagesInARow(t *testing.T) { newUpdating(t, true, true).goThrough(updates()) }

func updates() []update {
	return []update{
		{name: "kernel", does: func(m *updating) { m.install("debian-2", 2, "second", "quiet"); m.choose("debian-2") },
			says: `debian-2: PCR \S+, new keyslot`, boots: "second", peer: "257"},
		{name: "initrd", does: func(m *updating) { m.install("debian-2", 2, "second b", "quiet") },
			hook: true, says: "^luksmith: a keyslot was made for the next boot\n$", boots: "second b", peer: "252"},
		{name: "command line", does: func(m *updating) { m.install("debian-2", 2, "second b", "quiet lab=2") },
			says: `debian-2: PCR \S+, new keyslot`, boots: "second b\nlab=2"},
		{name: "second update before the reboot", does: func(m *updating) {
			m.install("debian-2", 2, "never started", "quiet")
			m.follow(0)
			m.install("debian-2", 2, "third", "quiet")
		}, says: `(?s)debian-2: PCR \S+, new keyslot.*wiped keyslot`, boots: "third"},
		{name: "rollback", does: func(m *updating) { m.choose("debian-1") },
			says: `debian-1: PCR \S+, keyslot`, boots: "first", peer: "257"},
		{name: "kernel removed, another one installed", does: func(m *updating) {
			m.remove("debian-2")
			m.install("debian-3", 3, "fourth", "quiet")
			m.choose("debian-3")
		}, says: `(?s)debian-3: PCR \S+, new keyslot.*wiped keyslot \d+ \(tpm2, "debian-2"\)`, boots: "fourth"},
		{name: "loader", does: func(m *updating) { m.putLoader(m.otherLoader()) },
			says: `(?s)debian-3: PCR \S+, new keyslot`, boots: "fourth", peer: "252"},
		{name: "loader back, and boot counting", does: func(m *updating) {
			m.putLoader(m.loader("257"))
			m.follow(0)
			m.count("debian-3")
		}, says: `debian-3: PCR \S+, keyslot`, boots: "fourth"},
		{name: "dbx", does: func(m *updating) { m.revoke() }, says: `debian-3: PCR \S+, new keyslot`, boots: "fourth", peer: "252"},
		{name: "initrd rebuilt outside the package manager", does: func(m *updating) { m.install("debian-3", 3, "fifth", "quiet") },
			boots: "fifth", closed: `(the initrd of debian-3|/EFI/Linux/debian-3\.efi) changed after it was enrolled`},
		{name: "write to the boot partition cut short", does: func(m *updating) {
			m.installHalf("debian-4")
		}, status: 12, says: `debian-4: no key, it will ask for a passphrase: .* shorter than its headers say, as if only a part had been written`, crash: true, boots: "fifth", after: 12},
		{name: "initrd that extends os-separator", does: func(m *updating) {
			m.remove("debian-4")
			m.separates = true
			m.installSeparator()
			m.install("debian-3", 3, "sixth", "quiet")
		}, says: `debian-3 \(if its initrd does otherwise about os-separator\): PCR \S+, new keyslot`, boots: "sixth"},
		{name: "header full", does: func(m *updating) { m.fill() },
			status: 12, says: `filler-\d+: no key, it will ask for a passphrase: the header has no room for a key: `, boots: "sixth", after: 12},
		{name: "loader of a version that was not measured", does: func(m *updating) { m.unfill(); m.follow(0); m.putLoader(m.strangeLoader()) },
			status: 13, says: `debian-3: no key, it will ask for a passphrase: /EFI/BOOT/BOOTX64.EFI is systemd-boot 258\S*, and what this version measures was not compared with a TPM`,
			boots: "sixth", closed: `/EFI/BOOT/BOOTX64.EFI changed after it was enrolled`, after: 12},
		{name: "nothing, with that loader", does: func(*updating) {}, status: 12, says: `debian-3 \(running\): PCR \S+, keyslot`, boots: "sixth", after: 12},
	}
}

// goThrough has somebody call follow once, and goes through the updates.
func (m *updating) goThrough(list []update) {
	m.start(false, "")
	m.Run(m.t, m.cryptenroll, "follow", "--tpm2-pcrs="+m.pcrs, "--compat=252", "--tpm2-with-pin=no", "--unlock-key-file="+m.Push(m.t, m.path("volume.key")), volume)
	m.enrollSigned()
	for _, u := range list {
		m.t.Logf("update: %s", u.name)
		u.does(m)
		m.announced(&u)
		if u.crash {
			m.Shell(m.t, "sync")
			m.VM.stop()
		} else {
			m.restart()
		}
		m.peer = u.peer
		m.start(u.closed == "", u.closed)
		if got := m.running(); got != u.boots {
			m.t.Errorf("%s: booted %q, want %q", u.name, got, u.boots)
		}
		if u.closed != "" {
			m.follow(u.after, "--unlock-key-file="+m.Push(m.t, m.path("volume.key")))
		} else {
			m.follow(u.after)
		}
		m.settled(u.name)
		if m.t.Failed() {
			m.t.FailNow() // the next steps would be about another machine
		}
	}
}

// announced calls follow and looks at what it says. The state that runs opens before
// and after.
func (m *updating) announced(u *update) {
	m.t.Helper()
	if u.says == "" {
		return
	}
	args := []string{m.cryptenroll, "follow"}
	if u.hook {
		args = append(args, "--hook")
	}
	before := m.opens()
	r := m.Try(m.t, args...)
	m.t.Logf("follow: %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	if r.Status != u.status || !regexp.MustCompile(u.says).MatchString(r.Stdout+r.Stderr) {
		m.t.Errorf("%s: follow ends with %d, want %d and %q\n%s%s", u.name, r.Status, u.status, u.says, r.Stdout, r.Stderr)
	}
	if before && !m.opens() {
		m.t.Errorf("%s: the running state does not open any more", u.name)
	}
	if !u.hook {
		m.announcedSigned(u.name, r.Stdout)
	}
}

// opens reports whether the TPM opens the volume in this boot.
func (m *updating) opens() bool {
	return m.Try(m.t, m.cryptenroll, "test", "--unlock-tpm2-device=auto", volume).Status == 0
}

// settled looks at the header after a boot: passphrase and key file are there, the state
// that runs has a key, and no state has one that no entry leads to.
func (m *updating) settled(name string) {
	m.t.Helper()
	if !m.opens() {
		m.t.Errorf("%s: the running state has no key", name)
	}
	header := m.header("volume")
	labels := []string{}
	for _, token := range header.Tokens {
		labels = append(labels, token.Luksmith.Label)
		if !m.installed[token.Luksmith.Label] {
			m.t.Errorf("%s: a key is left for %q", name, token.Luksmith.Label)
		}
	}
	m.t.Logf("keys: %q", labels)
	if header.Keyslots["0"] == nil || header.Keyslots["1"] == nil || len(header.Keyslots) != len(header.Tokens)+2 {
		m.t.Errorf("%s: %d keyslots, %d tokens", name, len(header.Keyslots), len(header.Tokens))
	}
	m.settledSigned(name)
}

// metadata is what the tests look at of a header.
type metadata struct {
	Keyslots map[string]any
	Tokens   map[string]struct {
		Luksmith struct {
			Label string
			TPM2  struct{ Signatures []struct{ Entry string } }
		}
	}
}

// header reads that of a volume.
func (m *updating) header(name string) (h metadata) {
	m.t.Helper()
	text := testenv.Run(m.t, "cryptsetup", "luksDump", "--dump-json-metadata", m.path(name))
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		m.t.Fatal(err)
	}
	return h
}

// install puts an entry on the boot partition, or another one in its place.
func (m *updating) install(id string, number int, text, cmdline string) {
	m.Shell(m.t, "rm -f "+m.conf(id)) // the loader may have renamed it
	m.put(m.entry(id, number, text, cmdline))
	m.installed[id] = true
}

// conf is what stands for an entry, whatever the loader has counted in its name.
func (m *updating) conf(id string) string {
	if m.unified {
		return "/efi/EFI/Linux/" + id + "[.+]*"
	}
	return "/efi/loader/entries/" + id + "[.+]*"
}

func (m *updating) remove(id string) {
	m.Shell(m.t, "rm -rf "+m.conf(id)+" /efi/"+id)
	delete(m.installed, id)
}

// choose has the loader start an entry.
func (m *updating) choose(id string) {
	m.put(map[string]string{"/loader/loader.conf": m.file("loader.conf", []byte("timeout 0\ndefault "+id+".*\n"))})
}

func (m *updating) putLoader(file string) {
	m.put(map[string]string{"/EFI/BOOT/BOOTX64.EFI": file})
}

// strangeLoader is a systemd-boot that says that it is of a version which nobody
// measured.
func (m *updating) strangeLoader() string {
	data, err := os.ReadFile(m.path("loader-257"))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.sign(m.file("loader-258", []byte(strings.ReplaceAll(string(data), "systemd-boot 257", "systemd-boot 258"))))
}

// otherLoader is one of another version that was measured: 252 without Secure Boot, with
// it another build of 257.
func (m *updating) otherLoader() string {
	if !m.secure {
		return m.loader("252")
	}
	data, err := os.ReadFile(m.path("loader-257"))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.sign(m.file("loader-257-2", []byte(strings.ReplaceAll(string(data), "systemd-boot 257.13-1", "systemd-boot 257.13-2"))))
}

// count has the loader count the boots of an entry.
func (m *updating) count(id string) {
	if m.unified {
		m.Shell(m.t, "mv /efi/EFI/Linux/"+id+".efi /efi/EFI/Linux/"+id+"+3.efi")
		return
	}
	m.Shell(m.t, "mv /efi/loader/entries/"+id+".conf /efi/loader/entries/"+id+"+3.conf")
}

// installHalf is an installation that a power cut ends.
func (m *updating) installHalf(id string) {
	files := m.entry(id, 4, "half", "quiet")
	for to, from := range files {
		if strings.HasSuffix(to, "linux") || strings.HasSuffix(to, ".efi") {
			testenv.Run(m.t, "truncate", "-s", "4M", from)
		}
	}
	m.put(files)
	m.installed[id] = true
}

// installSeparator puts the unit of systemd 261 into the system.
func (m *updating) installSeparator() {
	m.Shell(m.t, "mkdir -p /usr/lib/systemd/system; touch /usr/lib/systemd/system/systemd-pcrosseparator.service")
}

// fill makes more entries than the header has room for.
func (m *updating) fill() {
	files := map[string]string{}
	for i := range fillers {
		id := fmt.Sprintf("filler-%d", i)
		m.installed[id] = true
		for to, from := range m.filler(id) {
			files[to] = from
		}
	}
	m.put(files)
}

const fillers = 9

// filler is a small entry, which nobody will start.
func (m *updating) filler(id string) map[string]string {
	if !m.unified {
		return map[string]string{"/loader/entries/" + id + ".conf": m.file(id, fmt.Appendf(nil,
			"title %s\nmachine-id %s\nlinux /debian-3/linux\ninitrd /debian-3/initrd\noptions quiet filler=%[1]s\n", id, machineID))}
	}
	image := unifiedKernel(m.stub(), petest.Kernel("6.1.0"), []byte(id), "quiet", "6.1.0")
	return map[string]string{"/EFI/Linux/" + id + ".efi": m.sign(m.file(id, image))}
}

func (m *updating) unfill() {
	for i := range fillers {
		id := fmt.Sprintf("filler-%d", i)
		m.Shell(m.t, "rm "+m.conf(id))
		delete(m.installed, id)
	}
}

// revoke puts the hash of a program on the list of revoked ones, as an update of dbx
// does while the system runs.
func (m *updating) revoke() {
	hash := m.file("revoked", petest.Loader("1"))
	list, update := m.path("dbx.list"), m.path("dbx.update")
	testenv.Run(m.t, "hash-to-efi-sig-list", hash, list)
	testenv.Run(m.t, "sign-efi-sig-list", "-a", "-k", m.signingKey(), "-c", snakeoilKey+".pem", "dbx", list, update)
	// Attributes come first: non-volatile, for the boot loader and the system, signed
	// with a time, appended.
	data, err := os.ReadFile(update)
	if err != nil {
		m.t.Fatal(err)
	}
	variable := "/sys/firmware/efi/efivars/dbx-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	m.Shell(m.t, "[ ! -e "+variable+" ] || chattr -i "+variable+"; dd bs=64k if="+m.Push(m.t, m.file("dbx.variable", append([]byte{0x67, 0, 0, 0}, data...)))+" of="+variable+" oflag=append conv=notrunc")
}
