package boottest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/bootchain/esp"
	"luksmith/tokens/tpm2/eventlog"
)

// Kernel is the release that [Start] says is running.
const Kernel = "6.12.9-amd64"

// Where the parts of a machine are below its root.
const (
	ESP       = "boot/efi"
	logFile   = "sys/kernel/security/tpm0/binary_bios_measurements"
	variables = "sys/firmware/efi/efivars"
)

// Start makes the folder root look like a machine that was started from the files in
// its boot/efi: it writes the event log, with the firmware's part from a real boot,
// the firmware's variables and the release of the kernel. path is what systemd-boot
// was told to start, "/EFI/Linux/arch.efi". What it returns is what a TPM has to be
// extended with.
func Start(b *Boot, root, path string) ([]eventlog.Event, error) {
	disk, err := esp.Open(filepath.Join(root, ESP), false)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	m := &chain.Machine{Events: b.Events, Kernel: Kernel}
	run, err := chain.Simulate(m, disk, chain.Target{Files: disk, Path: path}, nil)
	if err != nil {
		return nil, err
	}
	events, err := logged(b.Events, run)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		logFile:                     encodeLog(b.Files["eventlog.bin"], events),
		"proc/sys/kernel/osrelease": []byte(Kernel + "\n"),
		variables + "/LoaderEntrySelected-" + efi.Loader: append([]byte{7, 0, 0, 0}, efi.UTF16(strings.ToLower(filepath.Base(path))+"\x00")...),
	}
	for name, file := range b.Variables(nil) {
		files[variables+"/"+name] = file.Data
	}
	for name, content := range files {
		if err := Write(filepath.Join(root, name), content); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// Write makes a file and its folder.
func Write(path string, content []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o600))
}

// logged makes events of measurements. Those that the firmware repeats are the ones of
// the old log, and what came before the first program stays before it.
func logged(old []eventlog.Event, run *chain.Run) ([]eventlog.Event, error) {
	var list []eventlog.Event
	count := map[int]int{}
	for _, e := range old {
		if e.Type == eventlog.TypeApplication {
			break
		}
		list = append(list, e)
		if len(eventlog.Of([]eventlog.Event{e}, e.PCR)) > 0 {
			count[e.PCR]++
		}
	}
	for _, pcr := range chain.Predictable() {
		for i, m := range chain.Of(run.Measurements, pcr) {
			if i < count[pcr] {
				continue
			}
			digest, err := m.Digest()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Subject(), err)
			}
			list = append(list, eventOf(m, digest[:], old))
		}
	}
	return list, nil
}

// eventOf is the event of a measurement: that of the old log, or a new one.
func eventOf(m chain.Measurement, digest []byte, old []eventlog.Event) eventlog.Event {
	for _, e := range eventlog.Of(old, m.PCR) {
		if bytes.Equal(e.Digests[chain.Bank], digest) && m.File == "" {
			return e
		}
	}
	e := eventlog.Event{PCR: m.PCR, Type: eventlog.TypeIPL, Digests: map[string][]byte{chain.Bank: digest}, Data: []byte(m.What + "\x00")}
	if m.PCR == 4 {
		e.Type, e.Data = eventlog.TypeApplication, imageLoad(strings.ReplaceAll(m.File, "/", `\`))
	}
	return e
}

// imageLoad is UEFI_IMAGE_LOAD_EVENT (TCG PC Client Platform Firmware Profile 1.06
// §10.4.3) with a path and no partition.
func imageLoad(path string) []byte {
	text := efi.UTF16(path + "\x00")
	b := make([]byte, 4*8)
	b = append(b, 4, 4)
	b = binary.LittleEndian.AppendUint16(b, uint16(4+len(text)))
	b = append(b, text...)
	return append(b, 0x7f, 0xff, 4, 0)
}

// encodeLog writes a log of SHA-256 digests behind the first event of another one.
func encodeLog(other []byte, events []eventlog.Event) []byte {
	const head = 4 + 4 + 20 + 4
	le := binary.LittleEndian
	log := bytes.Clone(other[:head+le.Uint32(other[head-4:])])
	for _, e := range events {
		for _, n := range []uint32{uint32(e.PCR), e.Type, 1} {
			log = le.AppendUint32(log, n)
		}
		log = le.AppendUint16(log, 0xb) // TPM_ALG_SHA256
		log = append(log, e.Digests[chain.Bank]...)
		log = le.AppendUint32(log, uint32(len(e.Data)))
		log = append(log, e.Data...)
	}
	return log
}

// SetVariable gives a variable of a machine that was started another content.
func SetVariable(root, name string, content []byte) error {
	found, err := filepath.Glob(filepath.Join(root, variables, name+"-*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%d variables are called %s", len(found), name)
	}
	return Write(found[0], Variable(content).Data)
}
