package e2e

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// TestDiskExchanged pulls the disk out at every stage of an attach and plugs it, or
// another one, in again.
func TestDiskExchanged(t *testing.T) {
	exchanges(t, newUnit(t, Shared(t)))
}

// TestDiskExchangedWithUdevd does so where links lead to the disk.
func TestDiskExchangedWithUdevd(t *testing.T) {
	t.Parallel()
	u := newUnit(t, udevGuest(t))
	exchanges(t, u)
	u.Shell(t, "udevadm settle")
}

// udevGuest boots a guest in which systemd's udevd runs.
func udevGuest(t *testing.T) *VM {
	t.Helper()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	tree := testenv.Systemd257(t)
	vm := Boot(t, Config{
		Root:     tree.Root,
		Programs: []string{"/usr/bin/udevadm", "/usr/sbin/dmsetup"},
		Files:    map[string]string{"/usr/lib/udev/rules.d": filepath.Join(tree.Root, "usr/lib/udev/rules.d")},
		Modules:  []string{"xhci-pci", "usb-storage"},
	})
	vm.Shell(t, "mkdir -p /usr/lib/systemd && ln -s /usr/bin/udevadm /usr/lib/systemd/systemd-udevd")
	vm.Start(t, Command{Args: []string{"/usr/lib/systemd/systemd-udevd"}})
	vm.Shell(t, "i=0; while ! [ -S /run/udev/control ]; do i=$((i+1)); [ $i -lt 200 ]; sleep 0.05; done; udevadm settle")
	return vm
}

const (
	question = "Please enter passphrase[a-z ]* for disk vol: "
	again    = "is looked for again"
)

// exchanges are the cases of a guest.
func exchanges(t *testing.T, u *unit) {
	t.Run("removed under the question", func(t *testing.T) { removedUnderTheQuestion(t, u) })
	t.Run("another disk at the path", func(t *testing.T) { anotherDiskAtThePath(t, u) })
	t.Run("another disk by UUID", func(t *testing.T) { anotherDiskByUUID(t, u) })
	t.Run("removed before the question", func(t *testing.T) { removedBeforeTheQuestion(t, u) })
	t.Run("removed while the key is computed", func(t *testing.T) { removedDuringTheKDF(t, u) })
	t.Run("detached header", func(t *testing.T) { removedWithDetachedHeader(t, u) })
	t.Run("header on a stick", func(t *testing.T) { headerStickRemoved(t, u) })
}

// otherGeometry is a volume of 4096-byte sectors with its data at 16 MiB.
func otherGeometry(t *testing.T) (image string) {
	t.Helper()
	image = artefact(t, "geometry.img", func(path string) error {
		pass := filepath.Join(filepath.Dir(path), "geometry.pass")
		if err := os.WriteFile(pass, []byte(passphrase), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(path, 24<<20); err != nil {
			return err
		}
		args := append([]string{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--sector-size", "4096", "--uuid", uuidNumber(7), path, pass}, cheap()...)
		return execute(nil, nil, args...)
	})
	return copyOf(t, image)
}

// opened checks that the volume that is mapped is the sample.
func (u *unit) opened(t *testing.T, p *Process) {
	t.Helper()
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 || u.contents(t, "vol") != inside {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
}

// nothingMapped checks that there is no mapping although somebody typed.
func (u *unit) nothingMapped(t *testing.T) {
	t.Helper()
	if got := u.Shell(t, "dmsetup ls").Stdout; got != "No devices found\n" {
		t.Errorf("mapped: %s", got)
	}
}

func removedUnderTheQuestion(t *testing.T, u *unit) {
	s := makeSample(t)
	for name, source := range map[string]string{"by path": "", "by UUID": "UUID=" + s.uuid} {
		t.Run(name, func(t *testing.T) {
			disk := u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
			source = cmp.Or(source, disk.Node(t))
			p := u.onTerminal(t, "attach", "vol", source, "-", "password-cache=no")
			p.Expect(t, question, slow)
			p.Write(t, "half a passph")
			disk.Remove(t)
			p.Expect(t, again, slow)
			u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
			p.Expect(t, "(?s)"+again+".*"+question, slow)
			p.Write(t, passphrase+"\n")
			u.opened(t, p)
		})
	}
}

func anotherDiskAtThePath(t *testing.T, u *unit) {
	disk := u.PlugDisk(t, Disk{Path: copyOf(t, makeSample(t).image)})
	node := disk.Node(t)
	p := u.onTerminal(t, "attach", "vol", node, "-", "password-cache=no")
	p.Expect(t, question, slow)
	disk.Remove(t)
	p.Expect(t, again, slow)
	if got := u.PlugDisk(t, Disk{Path: otherGeometry(t)}).Node(t); got != node {
		testenv.NotApplicable(t, "the other disk is "+got)
	}
	p.Expect(t, "(?s)another volume now: UUID "+uuidNumber(7)+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	table := u.Shell(t, "dmsetup table vol; dmsetup info -c --noheadings -o uuid vol").Stdout
	if r.Status != 0 || !strings.Contains(table, " 32768 ") || !strings.Contains(table, "sector_size:4096") || !strings.Contains(table, strings.ReplaceAll(uuidNumber(7), "-", "")) {
		t.Errorf("exit status %d\n%s\n%s", r.Status, table, r.Stdout)
	}
}

func anotherDiskByUUID(t *testing.T, u *unit) {
	s := makeSample(t)
	disk := u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	disk.Node(t)
	p := u.onTerminal(t, "attach", "vol", "UUID="+s.uuid, "-", "password-cache=no")
	p.Expect(t, question, slow)
	disk.Remove(t)
	p.Expect(t, again, slow)
	other := u.PlugDisk(t, Disk{Path: otherGeometry(t)})
	other.Node(t)
	p.Write(t, passphrase+"\n")
	time.Sleep(2 * time.Second)
	u.nothingMapped(t)
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	p.Expect(t, "(?s)"+again+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	u.opened(t, p)
}

// removedBeforeTheQuestion: a stick with the key is waited for first.
func removedBeforeTheQuestion(t *testing.T, u *unit) {
	s := makeSample(t)
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	disk := u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	node := disk.Node(t)
	server, silent := u.silentServer(t)
	p := u.onTerminal(t, "attach", "vol", "UUID="+s.uuid, server, "keyfile-timeout=100,headless")
	silent.Expect(t, "client", slow)
	disk.Remove(t)
	p.Expect(t, again, slow)
	p.Signal(t, 15)
	if r := p.Wait(t); r.Status != 11 {
		t.Errorf("%s: exit status %d\n%s", node, r.Status, r.Stdout)
	}
}

func removedDuringTheKDF(t *testing.T, u *unit) {
	s := makeSample(t)
	image := copyOf(t, s.image)
	pass := writeTemp(t, passphrase)
	testenv.Run(t, "cryptsetup", "luksConvertKey", "-q", "--key-slot", "0", "--key-file", pass, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "4000000", image)
	disk := u.PlugDisk(t, Disk{Path: image})
	p := u.onTerminal(t, "attach", "vol", disk.Node(t), "-", "key-slot=0,password-cache=no")
	p.Expect(t, question, slow)
	p.Write(t, passphrase+"\n")
	time.Sleep(300 * time.Millisecond)
	disk.Remove(t)
	p.Expect(t, again, slow)
	u.nothingMapped(t)
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	p.Expect(t, "(?s)"+again+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	u.opened(t, p)
}

func removedWithDetachedHeader(t *testing.T, u *unit) {
	s := makeSample(t)
	header := filepath.Join(t.TempDir(), "header")
	testenv.Run(t, "cryptsetup", "luksHeaderBackup", s.image, "--header-backup-file", header)
	path := u.Push(t, header)
	disk := u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	node := disk.Node(t)
	p := u.onTerminal(t, "attach", "vol", node, "-", "password-cache=no,header="+path)
	p.Expect(t, question, slow)
	disk.Remove(t)
	p.Expect(t, again, slow)
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	p.Expect(t, "(?s)"+again+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	u.opened(t, p)
}

func headerStickRemoved(t *testing.T, u *unit) {
	s := makeSample(t)
	stick := u.PlugUSBStick(t, Disk{Path: copyOf(t, makeStick(t))})
	stick.Node(t)
	node := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	p := u.onTerminal(t, "attach", "vol", node, "-", "password-cache=no,header=/header:LABEL=stick")
	p.Expect(t, question, slow)
	stick.Remove(t)
	p.Expect(t, again, slow)
	u.PlugUSBStick(t, Disk{Path: copyOf(t, makeStick(t))})
	p.Expect(t, "(?s)"+again+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	u.opened(t, p)
}
