package bootchain

import (
	"errors"
	"path"
	"strings"
	"unicode/utf16"

	"luksmith/tokens/tpm2/bootchain/bls"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// System is what the boot that is running left, and the files of the next.
type System struct {
	Machine *chain.Machine
	ESP     chain.Files
	// Others are further file systems with entries: the extended boot partition,
	// and for GRUB the one that its files are on.
	Others []chain.Files
	// PCRs are the values that the TPM has now, by number. A PCR that is not there
	// is taken to be as the log says.
	PCRs map[int][]byte
}

// Explained is what is known of one PCR of the boot that is running.
type Explained struct {
	// Value is what the boot chain left in it, as the event log replays.
	Value chain.Digest
	// Words are what user space extended before a volume was unlocked.
	Words []string
	// Reason is why the value is not explained, "" if it is.
	Reason string
}

// Boot is the boot that is running, explained from its files.
type Boot struct {
	Entry  Entry
	PCRs   map[int]Explained
	Parts  []chain.Part
	Config []byte // grub.cfg, if GRUB ran
	// Events are the subjects of the log's events that nothing explains, by PCR.
	Events map[int][]string
	// Accounts are the log's events, by PCR, each with what explains it; nil for a
	// boot that was kept in a record.
	Accounts map[int][]Account
}

// Account is an event of the log and what explains it.
type Account struct {
	Event string
	By    string // "section .linux of /EFI/Linux/arch.efi"; "" if nothing does
}

// ErrNoEntry: nothing that the loader offers is what was started.
var ErrNoEntry = errors.New("none of the boot entries is the one that was started")

// Kind names the program that chooses what is booted.
func (s *System) kind() (first string) {
	for _, e := range s.Machine.Events {
		if e.PCR == 4 && e.ImagePath() != "" {
			return e.ImagePath()
		}
	}
	return ""
}

// Targets are the entries of the machine's loader. Without systemd-boot there is
// one: what the firmware or GRUB starts.
func (s *System) Targets() ([]Entry, error) {
	if s.kind() == "" {
		return nil, chain.ErrNoLog
	}
	list, err := Entries(append([]chain.Files{s.ESP}, s.Others...)...)
	if err != nil {
		return nil, err
	}
	loader, err := chain.Loader(s.Machine, s.ESP)
	if err != nil || loader == chain.SDBoot {
		return list, err
	}
	files := s.ESP
	if len(s.Others) > 0 {
		files = s.Others[0]
	}
	return []Entry{{ID: string(loader), Target: chain.Target{Files: files, Path: s.kind()}}}, nil
}

// Postdict explains the boot that is running: it follows the boot of the entry that
// was started from the files as they are, and compares each PCR with the log and the
// TPM. A PCR that it does not explain is not predicted.
func (s *System) Postdict() (*Boot, error) {
	entries, err := s.Targets()
	if err != nil {
		return nil, err
	}
	var best *Boot
	score := -1
	for _, e := range s.started(entries) {
		b, n, err := s.explain(e)
		if err != nil {
			return nil, err
		}
		if n > score {
			best, score = b, n
		}
	}
	if best == nil {
		return nil, ErrNoEntry
	}
	return best, nil
}

// started narrows the entries down to those that the log and systemd-boot's
// variable LoaderEntrySelected allow; all of them if that leaves none.
func (s *System) started(entries []Entry) []Entry {
	var list []Entry
	selected := ""
	if b, err := s.Machine.Variables.Get("LoaderEntrySelected", efi.Loader); err == nil {
		selected, _, _ = bls.SplitName(utf16Text(b))
	}
	for _, e := range entries {
		// The loader writes the name in small letters (systemd 257 src/boot/boot.c,
		// boot_entry_add_type1).
		if strings.EqualFold(selected, e.ID) || selected == "" && s.logged(e.Target.Path) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return entries
	}
	return list
}

func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, uint16(b[0])|uint16(b[1])<<8)
	}
	return string(utf16.Decode(units))
}

// logged reports whether the log names a file as a program that was started. Boot
// assessment may have renamed it since.
func (s *System) logged(file string) bool {
	id, _, _ := bls.SplitName(path.Base(file))
	for _, e := range s.Machine.Events {
		name := e.ImagePath()
		was, _, _ := bls.SplitName(path.Base(strings.ReplaceAll(name, `\`, "/")))
		if name != "" && strings.EqualFold(was, id) {
			return true
		}
	}
	return false
}

// explain follows one entry and counts the PCRs that it explains.
func (s *System) explain(e Entry) (*Boot, int, error) {
	run, err := chain.Simulate(s.Machine, s.ESP, e.Target, nil)
	if err != nil {
		return nil, 0, err
	}
	b := &Boot{Entry: e, PCRs: map[int]Explained{}, Parts: run.Parts, Config: run.GRUBConfig, Events: map[int][]string{}, Accounts: map[int][]Account{}}
	count := 0
	for _, pcr := range chain.Predictable() {
		x := s.explainPCR(run, pcr)
		b.PCRs[pcr], b.Accounts[pcr] = x, accounts(s.Machine.Events, run, pcr)
		if x.Reason == "" {
			count++
		} else {
			b.Events[pcr] = unexplained(b.Accounts[pcr])
		}
	}
	return b, count, nil
}

// explainPCR compares what the rules give with the log, and the log with the TPM.
func (s *System) explainPCR(run *chain.Run, pcr int) Explained {
	var x Explained
	logged := eventlog.Replay(s.Machine.Events, chain.Bank, pcr)
	if len(logged) != len(x.Value) {
		x.Reason = "the event log has no SHA-256 digests of it"
		return x
	}
	copy(x.Value[:], logged)
	words, ok := []string(nil), true
	if now := s.PCRs[pcr]; now != nil {
		words, ok = Words(pcr, x.Value, now)
	}
	x.Words = words
	switch value, err := runValue(s.Machine, run, pcr); {
	case !ok:
		x.Reason = "the TPM has another value than the event log accounts for"
	case run.Unknown[pcr] != "":
		x.Reason = run.Unknown[pcr]
	case run.Unmeasured[pcr] != "":
		x.Reason = run.Unmeasured[pcr]
	case err != nil:
		x.Reason = err.Error()
	case value != x.Value:
		x.Reason = "the files on the disk do not account for it: " + firstOf(unexplained(accounts(s.Machine.Events, run, pcr)))
	}
	return x
}

// runValue is the value that a run gives a PCR.
func runValue(m *chain.Machine, run *chain.Run, pcr int) (chain.Digest, error) {
	var start chain.Digest
	copy(start[:], eventlog.Start(m.Events, chain.Bank, pcr))
	return chain.Replay(start, run.Measurements, pcr)
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return "events came in another order, or one is missing"
	}
	return list[0]
}

// accounts are the events of a PCR, each with the measurement that has its digest.
func accounts(events []eventlog.Event, run *chain.Run, pcr int) []Account {
	by := map[chain.Digest]string{}
	for _, m := range chain.Of(run.Measurements, pcr) {
		if d, err := m.Digest(); err == nil && by[d] == "" {
			if by[d] = m.Subject(); m.File == "" {
				by[d] = "the firmware"
			}
		}
	}
	var list []Account
	for _, e := range eventlog.Of(events, pcr) {
		a := Account{Event: e.String()}
		if d := e.Digests[chain.Bank]; len(d) == len(chain.Digest{}) {
			a.By = by[chain.Digest(d)]
		}
		list = append(list, a)
	}
	return list
}

// unexplained are the events whose digest no rule gave.
func unexplained(accounts []Account) []string {
	var list []string
	for _, a := range accounts {
		if a.By == "" {
			list = append(list, a.Event)
		}
	}
	return list
}
