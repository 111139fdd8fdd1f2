package e2e

import (
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
	args   string // kernel command line
	by     string // what opens the volume; empty: whoever answers the stock question
	wrong  int    // wrong answers before the right one
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
	{name: "data disk absent", disk: sealedDisk, tpm: true, by: "tpm2 token", change: func(a *archive) {
		distroTable(a, 0o600, distroLine+"data UUID=00000000-0000-4000-8000-0000000000aa none luks,initramfs,nofail\n")
	}},
}

// stockQuestion is how whoever asks in an image of a tool does so.
var stockQuestion = map[string]string{
	"initramfs-tools": `Please unlock disk root`,
	"dracut":          `Enter passphrase for /dev/`,
	"dracut-systemd":  `(?i)please enter passphrase for disk[^\n]*:`,
}

// questionLimit is when a person must be asked at the latest.
const questionLimit = 60 * time.Second

func TestDebian13(t *testing.T) { testDistro(t, newDistro(t, "trixie")) }

func TestDebian12(t *testing.T) { testDistro(t, newDistro(t, "bookworm")) }

// testDistro boots each cell with the image of each tool. The first cell is the
// measure of how slow the machine is: stock alone, in the same run.
func testDistro(t *testing.T, d *distro) {
	for _, tool := range []string{"initramfs-tools", "dracut", "dracut-systemd"} {
		t.Run(tool, func(t *testing.T) {
			image := d.initrd(t, tool)
			testenv.Run(t, "../build/luksmith-initrd", "--volume="+d.sealed, image)
			var stock time.Duration
			for _, c := range cells {
				t.Run(c.name, func(t *testing.T) {
					asked := c.run(t, d, tool, image)
					if c.name == "off" {
						stock = asked
					}
					if limit := max(questionLimit, stock+50*time.Second); asked > limit {
						t.Errorf("the question came after %v, stock alone asks after %v", asked, stock)
					}
				})
			}
		})
	}
}

// run boots one cell and returns when the stock question came, 0 if it did not.
func (c cell) run(t *testing.T, d *distro, tool, image string) (asked time.Duration) {
	t.Helper()
	if c.change != nil {
		image = overlay(t, image, c.change)
	}
	m := bootMachine(t, c.machine(d, tool, image))
	const booted = `E2E-BOOTED root=/dev/mapper/root`
	if c.by == "" {
		_, asked = m.await(stockQuestion[tool], 5*time.Minute)
		for range c.wrong {
			m.enter("wrong")
			m.await(stockAgain[tool], 2*time.Minute)
		}
		m.enter(passphrase)
		_, up := m.await(booted, 5*time.Minute)
		t.Logf("asked after %.1f s, booted after %.1f s", asked.Seconds(), up.Seconds())
		return asked
	}
	m.await(`"by": "`+c.by, 5*time.Minute)
	_, up := m.await(booted, time.Minute)
	t.Logf("booted after %.1f s", up.Seconds())
	return 0
}

// stockAgain is the same question, or that of the next try.
var stockAgain = map[string]string{
	"initramfs-tools": stockQuestion["initramfs-tools"],
	"dracut":          `(?i)passphrase[^\n]*:`,
	"dracut-systemd":  stockQuestion["dracut-systemd"],
}

// toolArgs is what the kernel command line needs for a tool. dracut without systemd
// opens only what that names.
var toolArgs = map[string]string{"dracut": "rd.luks.uuid=" + distroUUID + " "}

func (c cell) machine(d *distro, tool, image string) machineConfig {
	m := machineConfig{kernel: d.kernel, initrd: image, disks: []string{d.packed}, args: "root=/dev/mapper/root ro init=/e2e-init " + toolArgs[tool] + c.args}
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
