package e2e

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// A cell is one thing that goes right or wrong on the way to the root file system.
type cell struct {
	name   string
	change func(*archive)         // of the image; nil: none
	disk   func(*distro) string   // nil: the one with passphrase and key file only
	more   func(*distro) []string // further disks
	tpm    bool
	root   string // file system, below /dev/mapper; empty: "root"
	args   string // kernel command line
	by     string // what opens the volume; empty: whoever answers the stock question
	wrong  int    // wrong answers before the right one
	whole  bool   // systemd starts in the real root
	ends   string // what the console shows at last, if not that root is mounted
	tools  string // those that it is for; empty: all
}

const bootHelper = "usr/lib/luksmith/cryptsetup-unit"

// distroTable replaces crypttab wherever a tool has put it.
func distroTable(a *archive, mode int, text string) {
	a.file("cryptroot/crypttab", mode, []byte(text))
	a.file("etc/crypttab", mode, []byte(text))
}

func sealedDisk(d *distro) string { return d.sealed }
func movedDisk(d *distro) string  { return d.moved }

// script puts a shell script in place of the boot helper.
func helperScript(text string) func(*archive) {
	return func(a *archive) { a.file(bootHelper, 0o755, []byte("#!/bin/sh\n"+text+"\n")) }
}

// cells are the same for every tool that makes images.
var cells = []cell{
	{name: "off", args: "luksmith=no", tpm: true, disk: sealedDisk},
	{name: "TPM", tpm: true, disk: sealedDisk, by: "tpm2 token"},
	{name: "TPM policy moved", tpm: true, disk: movedDisk},
	{name: "no TPM", disk: sealedDisk},
	{name: "key file", by: "key file", change: func(a *archive) {
		a.file(distroKeyPath[1:], 0o600, []byte(keyFile))
		distroTable(a, 0o600, strings.Replace(distroLine, "none", distroKeyPath, 1))
	}},
	{name: "nothing enrolled"},
	{name: "program hangs", tpm: true, disk: sealedDisk, change: helperScript("exec sleep 100000")},
	{name: "program crashes", tpm: true, disk: sealedDisk, change: helperScript("kill -SEGV $$")},
	{name: "program deleted", tpm: true, disk: sealedDisk, change: func(a *archive) { a.file(bootHelper, 0o644, nil) }},
	{name: "crypttab that others can write", tpm: true, disk: sealedDisk, by: "tpm2 token", change: func(a *archive) { distroTable(a, 0o664, distroLine) }},
	{name: "three wrong answers", disk: sealedDisk, wrong: 3},
	{name: "three wrong answers, off", disk: sealedDisk, wrong: 3, args: "luksmith=no", tools: "dracut-systemd"},
	{name: "nofail disk absent", disk: sealedDisk, tpm: true, by: "tpm2 token", change: func(a *archive) { distroTable(a, 0o600, distroLine+absentLine+",nofail\n") }},
	// systemd waits for it as long as it has been told to, and dracut with it.
	{name: "data disk absent", disk: sealedDisk, tpm: true, by: "tpm2 token", tools: "initramfs-tools dracut", change: func(a *archive) { distroTable(a, 0o600, distroLine+absentLine+"\n") }},
	{name: "no crypttab, rd.luks.name", disk: sealedDisk, tpm: true, by: "tpm2 token", tools: "dracut dracut-systemd", change: func(a *archive) { distroTable(a, 0o600, "") }, args: "rd.luks.name=" + distroUUID + "=root"},
	{name: "no crypttab, rd.luks.uuid", disk: sealedDisk, tpm: true, by: "tpm2 token", tools: "dracut dracut-systemd", change: func(a *archive) { distroTable(a, 0o600, "") },
		args: "rd.luks.uuid=luks-" + distroUUID, root: "luks-" + distroUUID},
	{name: "no crypttab, cryptopts", disk: sealedDisk, tpm: true, tools: "initramfs-tools", change: func(a *archive) { distroTable(a, 0o600, "") },
		args: "cryptopts=target=root,source=UUID=" + distroUUID},
}

const absentLine = "data UUID=00000000-0000-4000-8000-0000000000aa none luks,initramfs"

// isFor reports whether the cell is for a tool.
func (c cell) isFor(tool string) bool {
	return c.tools == "" || slices.Contains(strings.Fields(c.tools), tool)
}

// stockQuestion is how whoever asks in an image of a tool does so.
var stockQuestion = map[string]string{
	"initramfs-tools": `Please unlock disk root`,
	"dracut":          `Enter passphrase for /dev/`,
	"dracut-systemd":  `(?i)please enter passphrase for disk[^\n]*:`,
	"systemd":         `(?i)please enter passphrase for disk[^\n]*:`,
	"discover":        ourQuestion,
	"mkinitcpio":      `Enter passphrase for /dev/`,

	"mkinitcpio-systemd": `(?i)please enter passphrase for disk[^\n]*:`,
}

func TestDebian13(t *testing.T) { testDistro(t, newDistro(t, "trixie")) }

func TestDebian12(t *testing.T) { testDistro(t, newDistro(t, "bookworm")) }

// testDistro boots each cell with the image of each tool, and with the newest system what
// else there is.
func testDistro(t *testing.T, d *distro) {
	for _, tool := range []string{"initramfs-tools", "dracut", "dracut-systemd"} {
		t.Run(tool, func(t *testing.T) {
			image := d.initrd(t, tool)
			testenv.Run(t, "../build/luksmith-initrd", "--volume="+d.sealed, image)
			testCells(t, d, tool, image)
			if d.suite == "trixie" {
				testMore(t, d, tool, image)
			}
		})
	}
	if d.suite == "trixie" {
		t.Run("systemd", func(t *testing.T) { d.testHomes(t, d.initrd(t, "initramfs-tools")) })
	}
	t.Run("changes", d.testChanges) // the last one: the package is gone then
}

// testMore boots other keys, disks and options.
func testMore(t *testing.T, d *distro, tool, image string) {
	t.Run("figures", func(t *testing.T) { d.testFigures(t, tool, image) })
	t.Run("FIDO2", func(t *testing.T) { d.testFIDO2(t, tool, image) })
	t.Run("layouts", func(t *testing.T) {
		d.makeLayouts(t)
		for _, c := range layoutCells {
			t.Run(c.name, func(t *testing.T) {
				once(t)
				c.run(t, d, tool, image)
			})
		}
	})
	t.Run("resume", func(t *testing.T) { d.testResume(t, tool, image) })
	if tool == "dracut-systemd" {
		return // systemd's own generator discovers there, and a unit is made for a volume that is ours alone
	}
	t.Run("alone", func(t *testing.T) { d.testAlone(t, tool) })
	t.Run("discover", func(t *testing.T) { d.testDiscover(t, tool) })
}

// testCells boots the cells that are the same for all tools.
func testCells(t *testing.T, d *distro, tool, image string) {
	var limit questionLimit
	for _, c := range cells {
		if !c.isFor(tool) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.name != "off" {
				once(t)
			}
			limit.check(t, c, c.run(t, d, tool, image))
		})
	}
}

// A questionLimit is when a person must be asked at the latest. The cell "off", the first
// one, is the measure of how slow the machine is: stock alone, in the same run.
type questionLimit struct{ stock time.Duration }

func (l *questionLimit) check(t *testing.T, c cell, asked time.Duration) {
	t.Helper()
	if c.name == "off" {
		l.stock = asked
	}
	if limit := max(60*time.Second, l.stock+50*time.Second); asked > limit {
		t.Errorf("the question came after %v, stock alone asks after %v", asked, l.stock)
	}
}

// run boots one cell and returns when the stock question came, 0 if it did not.
func (c cell) run(t *testing.T, d *distro, tool, image string) (asked time.Duration) {
	t.Helper()
	if c.change != nil {
		image = overlay(t, image, c.change)
	}
	return c.boot(t, d, tool, image)
}

// boot boots an image in which nothing has to be changed any more.
func (c cell) boot(t *testing.T, d *distro, tool, image string) (asked time.Duration) {
	t.Helper()
	m := bootMachine(t, c.machine(d, tool, image))
	if c.by == "" {
		return c.answer(m, tool)
	}
	m.await(`"by": "`+c.by, 5*time.Minute)
	_, up := m.await(c.booted(), time.Minute)
	t.Logf("booted after %.1f s", up.Seconds())
	return 0
}

// answer awaits the stock question, gives wrong answers and then the right one.
func (c cell) answer(m *machine, tool string) (asked time.Duration) {
	m.t.Helper()
	_, asked = m.await(stockQuestion[tool], 5*time.Minute)
	for n := range c.wrong {
		m.enter("wrong")
		text, gone := m.await(stockAgain[tool], 2*time.Minute)
		if strings.Contains(text, systemdGivesUp) {
			m.t.Logf("asked after %.1f s, systemd gave up after %.1f s and %d wrong answers", asked.Seconds(), gone.Seconds(), n+1)
			return asked
		}
	}
	m.enter(passphrase)
	_, up := m.await(c.booted(), 5*time.Minute)
	m.t.Logf("asked after %.1f s, booted after %.1f s", asked.Seconds(), up.Seconds())
	return asked
}

// booted is what the console shows at last.
func (c cell) booted() string {
	return cmp.Or(c.ends, `E2E-BOOTED root=/dev/mapper/`+cmp.Or(c.root, "root")+" ")
}

// systemdGivesUp is what the console shows after wrong answers to systemd 257, two of them,
// with luksmith and without.
const systemdGivesUp = "Emergency Mode"

// stockAgain is the same question, or that of the next try.
var stockAgain = map[string]string{
	"initramfs-tools": stockQuestion["initramfs-tools"],
	"dracut":          `(?i)passphrase[^\n]*:`,
	"dracut-systemd":  stockQuestion["dracut-systemd"] + "|" + systemdGivesUp,
	"systemd":         stockQuestion["systemd"] + "|" + systemdGivesUp,
	"discover":        ourQuestion,
}

// toolArgs is what the kernel command line needs for a tool. dracut without systemd
// opens only what that names.
var toolArgs = map[string]string{"dracut": "rd.luks.uuid=" + distroUUID + " ", "mkinitcpio": "cryptdevice=UUID=" + distroUUID + ":root "}

func (c cell) machine(d *distro, tool, image string) machineConfig {
	m := machineConfig{kernel: d.kernel, initrd: image, disks: []string{d.packed}, args: "root=/dev/mapper/" + cmp.Or(c.root, "root") + " ro " + toolArgs[tool] + c.args}
	if !c.whole {
		m.args += " init=/e2e-init"
	}
	if c.disk != nil {
		m.disks[0] = c.disk(d)
	}
	if c.more != nil {
		m.disks = append(m.disks, c.more(d)...)
	}
	if c.tpm {
		m.tpm = d.tpm
	}
	return m
}
