package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// updating is a machine with firmware, a TPM, a boot partition and an encrypted volume,
// on which what is kept from boot to boot lies.
type updating struct {
	*unit       // of the boot that is running
	cryptenroll string
	t           *testing.T
	dir         string // of the host
	tpm         *testenv.TPM
	kernel      *kernel
	secure      bool // Secure Boot is on
	unified     bool // unified kernel images, else kernels and initrds as files
	pcrs        string
	boots       int
	installed   map[string]bool // entries
	peer        string          // version of systemd that opens the volume before us
	separates   bool            // initrds extend os-separator
	signed      []signedVolume
}

// updatingModules are in the initrds of such a machine.
func updatingModules() []string {
	return []string{"virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "9p", "9pnet_virtio", "overlay",
		"dm-mod", "dm-crypt", "xts", "aesni-intel", "cryptd", "sha256_generic", "crc32c_generic", "ext4", "vfat", "nls_ascii", "nls_cp437", "efivarfs"}
}

const (
	machineID  = "5afe00000000400080000000000000e2"
	volume     = "/dev/vdb"
	unattended = "tpm2-device=auto,headless,password-cache=no"
)

// newUpdating makes the machine, with one entry and Debian 13's systemd-boot.
func newUpdating(t *testing.T, secure, unified bool) *updating {
	t.Helper()
	testenv.NeedEndToEnd(t)
	once(t)
	m := &updating{t: t, dir: t.TempDir(), secure: secure, unified: unified, kernel: needGuests(t), pcrs: "4+7", installed: map[string]bool{"debian-1": true}}
	if !unified {
		m.pcrs = "4+7+9"
	}
	for _, file := range []string{firmwareCode, firmwareVariables, snakeoilVariables, snakeoilKey + ".pem"} {
		if _, err := os.Stat(file); err != nil {
			testenv.Missing(t, file, "sh .ci/install-deps e2e")
		}
	}
	variables := firmwareVariables
	if secure {
		testenv.Need(t, "sbsign", "openssl")
		variables = snakeoilVariables
	}
	testenv.Run(t, "cp", variables, m.path("variables"))
	m.tpm = testenv.StartTPM(t, testenv.TPMOptions{})
	m.tpm.Stop()
	m.makeVolume("volume", distroUUID)
	files := m.entry("debian-1", 1, "first", "quiet")
	files["/EFI/BOOT/BOOTX64.EFI"] = m.loader("257")
	files["/loader/loader.conf"] = m.file("loader.conf", []byte("timeout 0\ndefault debian-1*\n"))
	makeDisk(t, m.path("disk"), files)
	return m
}

// path is a file of the host.
func (m *updating) path(name string) string { return filepath.Join(m.dir, name) }

func (m *updating) file(name string, data []byte) string {
	m.t.Helper()
	name = m.path(name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return name
}

// makeVolume makes a volume that a passphrase and a key file open.
func (m *updating) makeVolume(name, uuid string) {
	image := m.path(name)
	testenv.Run(m.t, "truncate", "-s", "16M", image)
	testenv.Run(m.t, "mke2fs", "-q", "-t", "ext4", "-F", image)
	encryptDistro(m.t, image, uuid)
}

// sign has the firmware accept a program where Secure Boot is on.
func (m *updating) sign(program string) string {
	if !m.secure {
		return program
	}
	testenv.Run(m.t, "sbsign", "--key", m.signingKey(), "--cert", snakeoilKey+".pem", "--output", program+".signed", program)
	return program + ".signed"
}

// signingKey is the one that the firmware trusts, for programs and for its own lists.
func (m *updating) signingKey() string {
	key := m.path("signing.key")
	if _, err := os.Stat(key); err != nil {
		testenv.Run(m.t, "openssl", "rsa", "-in", snakeoilKey+".key", "-passin", "pass:snakeoil", "-out", key)
	}
	return key
}

// loader is a systemd-boot of a version.
func (m *updating) loader(version string) string {
	data, err := os.ReadFile(filepath.Join(bootPrograms(m.t, version), "systemd-bootx64.efi"))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.sign(m.file("loader-"+version, data))
}

// entry are the files of a boot entry, by their path on the boot partition. number
// makes the kernel another one, text the initrd.
func (m *updating) entry(id string, number int, text, cmdline string) map[string]string {
	m.t.Helper()
	kernel, initrd := m.kernelImage(number), m.initrd(text)
	cmdline = m.cmdline(cmdline)
	if !m.unified {
		conf := fmt.Sprintf("title %s\nmachine-id %s\nlinux /%[1]s/linux\ninitrd /%[1]s/initrd\noptions %[3]s\n", id, machineID, cmdline)
		return map[string]string{
			path.Join("/", id, "linux"): m.file(id+".linux", kernel), path.Join("/", id, "initrd"): m.file(id+".initrd", initrd),
			"/loader/entries/" + id + ".conf": m.file(id+".conf", []byte(conf))}
	}
	image := m.file(id+".efi", unifiedKernel(m.stub(), kernel, initrd, cmdline, fmt.Sprintf("%d.0", number)))
	return map[string]string{"/EFI/Linux/" + id + ".efi": m.sign(image)}
}

// stub is what unified kernel images begin with.
func (m *updating) stub() []byte {
	stub, err := os.ReadFile(filepath.Join(bootPrograms(m.t, "257"), "linuxx64.efi.stub"))
	if err != nil {
		m.t.Fatal(err)
	}
	return stub
}

func (m *updating) cmdline(more string) string {
	modules, err := m.kernel.index.loadable(append(bootModules()[:3:3], "9pnet_virtio"))
	if err != nil {
		m.t.Fatal(err)
	}
	return "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off nokaslr random.trust_cpu=on e2e.modules=" + strings.Join(modules, ",") + " " + more
}

// kernelImage is Debian's kernel with another name of its builder for each number.
func (m *updating) kernelImage(number int) []byte {
	images, _ := filepath.Glob(filepath.Join(filepath.Dir(m.kernel.image), "vmlinuz-*"))
	data, err := os.ReadFile(images[0])
	if err != nil {
		m.t.Fatal(err)
	}
	at := strings.Index(string(data[:64<<10]), "(debian-kernel@")
	if at < 0 {
		m.t.Fatal("the kernel does not say who built it")
	}
	copy(data[at+1:], fmt.Sprintf("build%d", number))
	return data
}

// initrd has cryptsetup-unit, and a text that makes it another one.
func (m *updating) initrd(text string) []byte {
	base := artefact(m.t, "updating.cpio", func(out string) error {
		a := newArchive()
		if err := a.addSkeleton(build(m.t, "./e2e/guest")); err != nil {
			return err
		}
		if err := a.addModules(m.kernel, updatingModules()); err != nil {
			return err
		}
		if err := a.addProgram("/", "/usr/bin/chattr"); err != nil {
			return err
		}
		a.file("etc/machine-id", 0o444, []byte(machineID+"\n"))
		if err := a.copyFile("usr/local/bin/cryptsetup-unit", build(m.t, "./cryptsetup-unit")); err != nil {
			return err
		}
		return os.WriteFile(out, a.bytes(), 0o600)
	})
	data, err := os.ReadFile(base)
	if err != nil {
		m.t.Fatal(err)
	}
	a := newArchive()
	a.file("etc/text", 0o444, []byte(text))
	return append(data, a.bytes()...)
}

// start boots, and opens the volume as the initrd does: with nobody there if opens, else
// by the key file, after the TPM refused and what was said matches reason.
func (m *updating) start(opens bool, reason string) {
	m.t.Helper()
	m.boots++
	m.unit = &unit{boot(m.t, Config{Firmware: &Firmware{Variables: m.path("variables")}, TPM: m.tpm.StateDir(), Tree: testenv.Systemd257(m.t).Root,
		Disks: m.disks()}), "/usr/local/bin/cryptsetup-unit"}
	m.t.Cleanup(m.VM.stop)
	m.Shell(m.t, "mount -t efivarfs efivarfs /sys/firmware/efi/efivars")
	if m.separates {
		m.installSeparator()
		m.separate()
	}
	if m.peer != "" && m.preparePeer() {
		m.peerOpens(opens, volume, "")
	}
	r := m.Try(m.t, m.unit.path, "attach", "data", volume, "-", unattended)
	switch {
	case opens && r.Status != 0:
		m.t.Errorf("boot %d does not open: exit status %d\n%s", m.boots, r.Status, r.Stderr)
	case !opens && r.Status == 0:
		m.t.Errorf("boot %d opens", m.boots)
	case !opens && !regexp.MustCompile(reason).MatchString(r.Stderr):
		m.t.Errorf("boot %d does not say %q:\n%s", m.boots, reason, r.Stderr)
	}
	if r.Status != 0 {
		m.Run(m.t, m.unit.path, "attach", "data", volume, m.Push(m.t, m.path("volume.key")), "headless")
	}
	m.Shell(m.t, `mkdir -p /data /efi /var/lib/luksmith; mount -t ext4 /dev/mapper/data /data; mkdir -p /data/luksmith; mount --bind /data/luksmith /var/lib/luksmith
		mount -t vfat /dev/vda1 /efi`)
	m.cryptenroll = m.Program(m.t, "./cryptenroll")
	m.openSigned(opens)
	m.t.Logf("boot %d: %s, the kernel was up after %v; %s", m.boots, m.running(), m.VM.Booted, strings.TrimSpace(r.Stderr))
}

// separate does what systemd-pcrosseparator.service does in an initrd.
func (m *updating) separate() {
	word := sha256.Sum256([]byte("os-separator"))
	var records []byte // systemd's event log
	for _, pcr := range []byte{0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14} {
		m.extend(pcr, word)
		record := fmt.Sprintf("\x1e{\"pcr\":%d,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":\"%x\"}],\"content_type\":\"systemd\",\"content\":{\"string\":\"os-separator\",\"eventType\":\"os-separator\"}}\n", pcr, word)
		records = append(records, record...)
	}
	m.Shell(m.t, "mkdir -p /run/log/systemd")
	m.WriteFile(m.t, "/run/log/systemd/tpm2-measure.log", records, 0o600)
}

// extend has the TPM extend a PCR, by the command itself.
func (m *updating) extend(pcr byte, digest [sha256.Size]byte) {
	m.t.Helper()
	// TPM2_PCR_Extend with one digest of SHA-256 (TPM 2.0 library, part 3).
	command := append([]byte{0x80, 2, 0, 0, 0, 65, 0, 0, 1, 0x82, 0, 0, 0, pcr, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 11}, digest[:]...)
	text := ""
	for _, b := range command {
		text += fmt.Sprintf("\\%03o", b)
	}
	value := fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", pcr)
	before := m.Shell(m.t, "cat "+value).Stdout
	for range 10 {
		r := m.Shell(m.t, "exec 3<>/dev/tpm0; printf '"+text+"' >&3; dd bs=4096 count=1 <&3 | hexdump -v -e '1/1 \"%02x\"'")
		// Where both machines are busy, the kernel does not wait for the response.
		if m.Shell(m.t, "cat "+value).Stdout != before {
			return
		}
		m.t.Logf("extending PCR %d again: %s%s", pcr, r.Stdout, r.Stderr)
	}
	m.t.Fatalf("PCR %d is not extended", pcr)
}

// preparePeer makes a root folder for systemd's own program, and reports whether there
// is one.
func (m *updating) preparePeer() bool {
	m.t.Helper()
	root, _ := m.peerProgram()
	if m.peer == "257" {
		m.PrepareRoot(m.t)
	} else if testenv.Run(m.t, "systemctl", "--version")[:11] == "systemd 252" {
		m.Shell(m.t, "mkdir /old; mount -t tmpfs tmpfs /old; cp -a "+m.Push(m.t, systemd252(m.t))+"/. /old")
	} else {
		m.t.Logf("the machine that runs the tests has no systemd 252")
		m.peer = ""
		return false
	}
	m.Shell(m.t, "for d in dev proc sys run; do mkdir -p "+root+"/$d; mount --bind /$d "+root+"/$d; done")
	return true
}

func (m *updating) peerProgram() (root, program string) {
	if m.peer == "252" {
		return "/old", systemd252Program
	}
	return "/newroot", "/usr/bin/systemd-cryptsetup"
}

// peerOpens has systemd's own program open a volume, as it would without us.
func (m *updating) peerOpens(opens bool, device, more string) {
	m.t.Helper()
	root, program := m.peerProgram()
	attach := Command{Args: []string{"chroot", root, program, "attach", "peer", device, "-", "headless=1,tpm2-device=auto" + more},
		Env: []string{"SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_LOG_TARGET=console", "PIN=" + devicePIN}}
	r := m.Start(m.t, attach).Wait(m.t)
	for try := 1; try < 5 && r.Status != 0 && strings.Contains(r.Stderr, "Timer expired"); try++ {
		m.t.Logf("the kernel did not wait for the TPM of this busy machine")
		r = m.Start(m.t, attach).Wait(m.t)
	}
	if (r.Status == 0) != opens {
		m.t.Errorf("systemd-cryptsetup %s of %s ends with %d\n%s", m.peer, device, r.Status, r.Stderr)
	}
	if r.Status == 0 {
		m.Run(m.t, "chroot", root, program, "detach", "peer")
	}
	m.t.Logf("systemd-cryptsetup %s of %s: %d", m.peer, device, r.Status)
}

const systemd252Program = "/lib/systemd/systemd-cryptsetup"

// systemd252 is a root folder with the systemd-cryptsetup of the machine that runs the
// tests, which is Debian 12.
func systemd252(t testing.TB) string {
	return artefact(t, "systemd252", func(out string) error {
		const libraries = "/usr/lib/x86_64-linux-gnu/"
		files := []string{systemd252Program, libraries + "cryptsetup/libcryptsetup-token-systemd-tpm2.so"}
		for _, name := range []string{"esys", "rc", "mu", "tcti-device"} {
			files = append(files, libraries+"libtss2-"+name+".so.0")
		}
		all, err := tree("/").closure(files...)
		if err != nil {
			return err
		}
		return execute(nil, nil, append([]string{"sh", "-euc", `mkdir -p "$0/usr/lib/systemd" "$0/usr/lib64" "$0/usr/bin" "$0/etc" "$0/tmp" "$0/var"
			for d in bin lib lib64; do ln -s usr/$d "$0/$d"; done
			for f; do mkdir -p "$0$(dirname "$f")"; cp -L "$f" "$0$f"; done`, out}, all...)...)
	})
}

// running is what the initrd that was started and the command line say of themselves.
func (m *updating) running() string {
	return strings.TrimSpace(m.Shell(m.t, "cat /etc/text; echo; grep -o 'lab=.*' /proc/cmdline || :").Stdout)
}

// restart is a restart, with what a system does at its end.
func (m *updating) restart() {
	m.t.Helper()
	m.Shell(m.t, "umount /sys/firmware/efi/efivars /efi /var/lib/luksmith; ! mountpoint -q /etc/luksmith || umount /etc/luksmith; umount /data")
	for _, v := range m.signed {
		m.Run(m.t, m.unit.path, "detach", v.name)
	}
	m.Run(m.t, m.unit.path, "detach", "data")
	m.VM.Restart(m.t)
}

// put copies files to the boot partition.
func (m *updating) put(files map[string]string) {
	m.t.Helper()
	for to, from := range files {
		m.Shell(m.t, "mkdir -p /efi"+path.Dir(to)+"; cp "+m.Push(m.t, from)+" /efi"+to)
	}
}

// followed is what the tests look at of follow --json.
type followed struct {
	Changed bool
	Volumes []struct {
		States []struct {
			Entry, Grade, Reason, PCRs string
			Running, New               bool
			Slot                       *int
		}
		Wiped, Left []struct {
			Slot  int
			Label string
		}
	}
}

// follow calls the command.
func (m *updating) follow(status int, args ...string) (f followed) {
	m.t.Helper()
	r := m.Try(m.t, append([]string{m.cryptenroll, "follow", "--json=short"}, args...)...)
	m.t.Logf("follow: %d %s%s", r.Status, r.Stdout, r.Stderr)
	if err := json.Unmarshal([]byte(r.Stdout), &f); err != nil || r.Status != status {
		m.t.Fatalf("follow %q: exit status %d, want %d; %v\n%s%s", args, r.Status, status, err, r.Stdout, r.Stderr)
	}
	return f
}
