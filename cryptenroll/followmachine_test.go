package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/rogpeppe/go-internal/txtar"

	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/esp"
	"luksmith/tokens/tpm2/eventlog"
)

// bootMachine is a machine whose firmware starts systemd-boot from an ESP. What its
// firmware measures is from a recorded boot, what its programs measure follows the
// rules of package bootchain, which are compared with recorded boots there.
type bootMachine struct {
	*machine
	firmware []eventlog.Event // of the recorded boot
	boots    int
	unplug   []int // PCRs that get another value at the next boot than was to be expected
	// separates says that initrds extend os-separator.
	separates bool
}

const machineID = "6f1d4a1e0a1d4b0f9d7e1f6a2f3b4c5d"

func newBootMachine(t testing.TB) *bootMachine {
	t.Helper()
	m := &bootMachine{machine: newMachine(t)}
	archive, err := txtar.ParseFile("../tokens/tpm2/bootchain/testdata/uki.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name == "base/eventlog.bin.b64" {
			text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(f.Data), "\n", ""))
			if err != nil {
				t.Fatal(err)
			}
			if m.firmware, err = eventlog.Parse(text); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("257"))
	m.put("efi/loader/loader.conf", []byte("timeout 3\n"))
	m.put("etc/machine-id", []byte(machineID+"\n"))
	m.put("usr/lib/os-release", []byte("ID=debian\n"))
	return m
}

func (m *bootMachine) put(name string, text []byte) {
	m.t.Helper()
	name = filepath.Join(m.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, 0o600)); err != nil {
		m.t.Fatal(err)
	}
}

// image is where the unified kernel image of an entry lies.
func image(entry string) string { return "/EFI/Linux/" + entry + ".efi" }

// install writes a unified kernel image.
func (m *bootMachine) install(entry, initrd string) {
	m.put("efi"+image(entry), petest.Image("257", petest.Kernel("6.12.1"), []byte(initrd), "quiet"))
}

// installEntry writes a kernel, an initrd and the file of an entry for a system.
func (m *bootMachine) installEntry(entry, machine, initrd string) (file string) {
	m.put("efi/"+entry+"/linux", petest.Kernel("6.12.1"))
	m.put("efi/"+entry+"/initrd", []byte(initrd))
	file = "/loader/entries/" + entry + ".conf"
	m.put("efi"+file, fmt.Appendf(nil, "title %s\nmachine-id %s\nlinux /%[1]s/linux\ninitrd /%[1]s/initrd\noptions quiet\n", entry, machine))
	return file
}

func (m *bootMachine) removeEntry(entry string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.root, "efi/loader/entries", entry+".conf")); err != nil {
		m.t.Fatal(err)
	}
}

func (m *bootMachine) remove(entry string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.root, "efi"+image(entry))); err != nil {
		m.t.Fatal(err)
	}
}

// start is a power cycle after which a unified kernel image is booted from the files as
// they are.
func (m *bootMachine) start(entry string) {
	m.t.Helper()
	m.startFile(image(entry))
}

// startFile does so with the image or the entry that a file is.
func (m *bootMachine) startFile(file string) {
	m.t.Helper()
	disk, err := esp.Open(filepath.Join(m.root, "efi"), false)
	if err != nil {
		m.t.Fatal(err)
	}
	defer disk.Close()
	run, err := chain.Simulate(&chain.Machine{Events: m.firmware, Kernel: "6.12.1"}, disk, chain.Target{Files: disk, Path: file}, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	log := binary.LittleEndian.AppendUint32(nil, 0)
	log = append(binary.LittleEndian.AppendUint32(log, 3), make([]byte, 20)...)
	spec := []byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02\x01\x00\x00\x00\x0b\x00\x20\x00\x00")
	log = append(binary.LittleEndian.AppendUint32(log, uint32(len(spec))), spec...)
	m.chip.Shutdown() // else it may count as a wrong PIN
	m.chip.Reset()
	for _, x := range run.Measurements {
		d, err := x.Digest()
		if err != nil {
			m.t.Fatal(err)
		}
		m.chip.Extend(x.PCR, "sha256", d[:])
		log = append(log, m.event(x, d)...)
	}
	for n := range 15 {
		if m.separates && eventlog.Separated(n) {
			word := sha256.Sum256([]byte(eventlog.OSSeparator))
			m.chip.Extend(n, "sha256", word[:])
		}
	}
	for _, n := range m.unplug {
		m.chip.Extend(n, "sha256", make([]byte, 32))
	}
	m.unplug = nil
	m.boots++
	m.put("sys/kernel/security/tpm0/binary_bios_measurements", log)
	m.put("proc/sys/kernel/osrelease", []byte("6.12.1\n"))
	m.put("proc/sys/kernel/random/boot_id", fmt.Appendf(nil, "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a%02x\n", m.boots))
}

// event is a measurement as it stands in the log: as recorded if that had the same
// one, else as a program of that name.
func (m *bootMachine) event(x chain.Measurement, d chain.Digest) []byte {
	kind, data := uint32(0xd), []byte(x.Subject())
	switch i := slices.IndexFunc(m.firmware, func(e eventlog.Event) bool { return e.PCR == x.PCR && bytes.Equal(e.Digests["sha256"], d[:]) }); {
	case i >= 0:
		kind, data = m.firmware[i].Type, m.firmware[i].Data
	case x.PCR == 4 && path.IsAbs(x.File):
		kind, data = eventlog.TypeApplication, m.imageLoad(x.File)
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(x.PCR))
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = append(binary.LittleEndian.AppendUint32(b, 1), 0xb, 0)
	b = append(b, d[:]...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// imageLoad is UEFI_IMAGE_LOAD_EVENT for a file on the disk of the recorded boot.
func (m *bootMachine) imageLoad(file string) []byte {
	for _, e := range m.firmware {
		if e.Type != eventlog.TypeApplication || e.ImagePath() == "" {
			continue
		}
		at := 32
		for e.Data[at] != 4 || e.Data[at+1] != 4 { // up to the file's node
			at += int(binary.LittleEndian.Uint16(e.Data[at+2:]))
		}
		var name []byte
		for _, u := range utf16.Encode([]rune(strings.ReplaceAll(file, "/", `\`) + "\x00")) {
			name = binary.LittleEndian.AppendUint16(name, u)
		}
		data := append(bytes.Clone(e.Data[:at]), 4, 4)
		data = append(binary.LittleEndian.AppendUint16(data, uint16(4+len(name))), name...)
		data = append(data, 0x7f, 0xff, 4, 0)
		binary.LittleEndian.PutUint64(data[24:], uint64(len(data)-32))
		return data
	}
	m.t.Fatal("the recorded log has no program")
	return nil
}

// run starts the command without the passphrase.
func (m *bootMachine) run(args ...string) result {
	m.t.Helper()
	cmd := m.command(args...)
	cmd.Env = nil
	return runCommand(m.t, cmd)
}

// follow is the command with the options of this machine.
func (m *bootMachine) follow(args ...string) result {
	m.t.Helper()
	return m.run(append([]string{"follow", "--esp-path=/efi", "--tpm2-device=" + m.chip.Device()}, args...)...)
}

// opens reports whether a token opens the volume in the boot that is running.
func (m *bootMachine) opens(volume string) bool {
	m.t.Helper()
	return m.run("test", "--unlock-tpm2-device="+m.chip.Device(), volume).status == 0
}
