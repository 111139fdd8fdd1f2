package e2e

import (
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
	t.Run("socket of systemd 262", func(t *testing.T) { udevdOfSystemd262(t, u) })
}

// udevdOfSystemd262 puts a link to a stream socket where older ones have a socket of
// packets. Links are left to udevd all the same, and it is waited for with a semaphore.
func udevdOfSystemd262(t *testing.T, u *unit) {
	s := makeSample(t)
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.PlugDisk(t, Disk{Path: copyOf(t, s.image)}).Node(t)
	u.Shell(t, "udevadm settle; mv /run/udev/control /run/udev/control.257")
	server, _ := u.silentServer(t)
	u.Shell(t, "ln -s "+server+" /run/udev/control")
	t.Cleanup(func() { u.Shell(t, "mv /run/udev/control.257 /run/udev/control; udevadm settle") })
	r := u.attach(t, "vol", "UUID="+s.uuid, "/run/test-key", "headless")
	if got := u.Shell(t, "readlink /dev/mapper/vol; tail -n +2 /proc/sysvipc/sem").Stdout; got != "../dm-0\n" {
		t.Errorf("the node, and the semaphores that are left: %q\n%s", got, r.Stderr)
	}
	if got := u.contents(t, "vol"); got != inside || strings.Contains(r.Stderr, "exists") {
		t.Errorf("mapped: %q\n%s", got, r.Stderr)
	}
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
	for i, x := range exchangeTable() {
		if !testenv.EndToEnd() && !x.quick {
			continue
		}
		t.Run(x.String(), func(t *testing.T) { x.run(t, u, i) })
	}
	t.Run("detached header", func(t *testing.T) { removedWithDetachedHeader(t, u) })
	t.Run("header on a stick", func(t *testing.T) { headerStickRemoved(t, u, "question", makeStick(t), "", inside) })
	if testenv.EndToEnd() {
		t.Run("header on a stick, both exchanged", func(t *testing.T) {
			headerStickRemoved(t, u, "question", twinStick(t), (&exchange{}).image(t, "twin"), exchangeTexts["twin"])
		})
		t.Run("header on a stick, key there", func(t *testing.T) { headerStickRemoved(t, u, "key there", makeStick(t), "", inside) })
	}
}

// opened checks that the volume that is mapped holds a text.
func (u *unit) opened(t *testing.T, p *Process, text string) {
	t.Helper()
	r := p.Wait(t)
	t.Cleanup(func() { u.detach(t, "vol") })
	if r.Status != 0 {
		t.Fatalf("exit status %d\n%s", r.Status, r.Stdout)
	}
	if got := u.contents(t, "vol"); got != text {
		t.Errorf("mapped: %q, want %q\n%s", got, text, r.Stdout)
	}
}

// nothingMapped checks that there is no mapping although somebody typed.
func (u *unit) nothingMapped(t *testing.T) {
	t.Helper()
	if got := u.Shell(t, "dmsetup ls").Stdout; got != "No devices found\n" {
		t.Errorf("mapped: %s", got)
	}
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
	u.opened(t, p, inside)
}

// headerStickRemoved plugs another stick in, and another disk if one is given.
func headerStickRemoved(t *testing.T, u *unit, stage, otherStick, otherDisk, text string) {
	s := makeSample(t)
	stick := u.PlugUSBStick(t, Disk{Path: copyOf(t, makeStick(t))})
	stick.Node(t)
	disk := u.PlugDisk(t, Disk{Path: copyOf(t, s.image)})
	x := &exchange{stage: stage, by: "link"}
	named := x.source(t, u, disk.Node(t))
	p := u.onTerminal(t, "attach", "vol", named, "-", "password-cache=no,header=/header:LABEL=stick")
	x.reach(t, u, p)
	if stage == "key there" {
		time.Sleep(2 * time.Second) // until the key area was read from the stick, on a busy machine
	}
	stick.Remove(t)
	if stage == "key there" { // the header was read from it, and the disk is the same
		u.Shell(t, "dmsetup remove vol || true")
		u.opened(t, p, text)
		return
	}
	p.Expect(t, again, slow)
	if otherDisk != "" {
		disk.Remove(t)
		u.Shell(t, "ln -sfn "+u.PlugDisk(t, Disk{Path: otherDisk}).Node(t)+" "+named)
	}
	u.PlugUSBStick(t, Disk{Path: copyOf(t, otherStick)})
	p.Expect(t, "(?s)"+again+".*"+question, slow)
	p.Write(t, passphrase+"\n")
	u.opened(t, p, text)
}
