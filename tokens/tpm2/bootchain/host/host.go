// Package host gathers from the running machine, or from a folder that looks like
// one, what package bootchain needs: event log, firmware variables, SMBIOS tables,
// and the partitions that programs are started from.
package host

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/bootchain/esp"
	"luksmith/tokens/tpm2/eventlog"
)

// Options say where to look.
type Options struct {
	// Root is the folder below which everything is; empty is /.
	Root string
	// ESP and Boot are where the EFI system partition and the extended boot
	// partition are mounted; empty looks in the usual places.
	ESP, Boot string
	// EventLog and Variables are the event log and the folder of the firmware's
	// variables; empty is where the kernel shows them.
	EventLog, Variables string
	// Sync brings each file to the disk before it is read.
	Sync bool
}

// Host is a machine whose next boots can be predicted.
type Host struct {
	System *bootchain.System
	// ESP and Boot are the folders that were used; Boot is "" without one.
	ESP, Boot string
	// MachineID is of the running system, "" if it has none.
	MachineID string

	root  string
	disks []*esp.Disk
}

// Reasons why nothing can be said.
var (
	// ErrNoLog: firmware or kernel keep no event log, as on machines without UEFI
	// or without TPM.
	ErrNoLog = errors.New("there is no event log of this boot")
	// ErrNoESP: the EFI system partition is not mounted in one of the usual places.
	ErrNoESP = errors.New("the EFI system partition was not found")
	// ErrNoBoot: what was named is not an extended boot partition.
	ErrNoBoot = errors.New("the extended boot partition was not found")
	// ErrOtherESP: what is mounted is not the partition that the machine started
	// from.
	ErrOtherESP = errors.New("this boot was started from another partition than the one that is mounted")
)

// Open gathers everything. Close it after the last prediction: files are read when
// they are asked for.
func Open(o Options) (*Host, error) {
	h := &Host{root: filepath.Join("/", o.Root)}
	if o.Root != "" {
		h.root = filepath.Clean(o.Root)
	}
	events, err := h.events(o.EventLog)
	if err != nil {
		return nil, err
	}
	h.MachineID = h.text("etc/machine-id")
	h.System = &bootchain.System{Machine: &chain.Machine{Events: events, Kernel: h.text("proc/sys/kernel/osrelease"),
		Variables: h.variables(o.Variables), SMBIOS: h.smbios()}}
	if err := h.mount(o); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	h.System.Machine.BootSecret = h.bootSecret()
	return h, nil
}

// Close closes the files.
func (h *Host) Close() error {
	var errs []error
	for _, d := range h.disks {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

func (h *Host) join(path string) string { return filepath.Join(h.root, path) }

// events is the firmware's log.
func (h *Host) events(path string) ([]eventlog.Event, error) {
	path = cmp.Or(path, h.join("sys/kernel/security/tpm0/binary_bios_measurements"))
	text, err := readLimited(path, eventlog.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrNoLog, path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	events, err := eventlog.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	return events, nil
}

// readLimited reads a whole file. Those of the kernel do not tell their size.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, err
}

// text is a file of one line, "" if it cannot be read.
func (h *Host) text(path string) string {
	b, err := readLimited(h.join(path), 4096)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h *Host) variables(path string) efi.Variables {
	path = cmp.Or(path, h.join("sys/firmware/efi/efivars"))
	if entries, err := os.ReadDir(path); err != nil || len(entries) == 0 {
		return efi.Variables{}
	}
	return efi.Variables{FS: os.DirFS(path)}
}

// smbios is nil if the tables cannot be read: then PCR 1 may be unknown.
func (h *Host) smbios() []efi.Structure {
	b, err := readLimited(h.join("sys/firmware/dmi/tables/DMI"), efi.MaxSMBIOS)
	if err != nil {
		return nil
	}
	tables, err := efi.ParseSMBIOS(b)
	if err != nil {
		return nil
	}
	return tables
}

// bootSecret is what systemd-stub gave the running system, nil where there is none.
// It stays in memory.
func (h *Host) bootSecret() *chain.BootSecret {
	b, err := readLimited(h.join("run/systemd/stub/boot-secret"), 32)
	if err != nil || len(b) != 32 {
		return nil
	}
	defer clear(b)
	image := ""
	for _, e := range h.System.Machine.Events {
		if p := e.ImagePath(); e.PCR == 4 && p != "" && !strings.HasSuffix(strings.ToLower(p), ".addon.efi") {
			image = "/" + strings.Trim(strings.ReplaceAll(p, `\`, "/"), "/")
		}
	}
	for _, files := range append([]chain.Files{h.System.ESP}, h.System.Others...) {
		if s, err := chain.BootSecretOf([32]byte(b), h.System.ESP, chain.Target{Files: files, Path: image}); err == nil {
			return s
		}
	}
	return nil
}

// partition is the GUID of the partition that firmware started the first program
// from, "" if the log does not say.
func (h *Host) partition() string {
	for _, e := range h.System.Machine.Events {
		if e.PCR == 4 && e.ImagePath() != "" {
			return e.PartitionGUID()
		}
	}
	return ""
}
