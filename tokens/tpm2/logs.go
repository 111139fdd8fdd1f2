package tpm2

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
)

// bootEvents are the events of this boot, the firmware's first. Logs that are not
// there or cannot be read leave their part out: they only serve to explain.
func (p Paths) bootEvents() []eventlog.Event {
	var events []eventlog.Event
	if log, err := readLog(p.firmwareLog()); err == nil {
		events, _ = eventlog.Parse(log)
	}
	if log, err := readLog(p.userspaceLog()); err == nil {
		events = append(events, eventlog.ParseUserspace(log)...)
	}
	return events
}

// readLog reads a log of at most eventlog.MaxSize bytes. The kernel's files do not
// tell their size.
func readLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, eventlog.MaxSize)
}

// savedEvent is a line of the event log that is kept in full on the machine.
type savedEvent struct {
	PCR    int    `json:"pcr"`
	Digest string `json:"digest"`
	Event  string `json:"event"`
}

// maxSavedLogs is how many logs are kept; older ones are removed.
const maxSavedLogs = 20

// logFile is where the event log of the enrolment with a policy is kept. The
// policy stands for the values of the PCRs, so tokens that share the file share
// its content.
func (p Paths) logFile(policy chip.Digest) string {
	return filepath.Join(p.state(), "events", hex.EncodeToString(policy[:16])+".json")
}

// saveLog keeps the event log. It does nothing where that is not possible, as on a
// system that is read-only.
func (p Paths) saveLog(policy chip.Digest, b chip.Bank, events []eventlog.Event) {
	if len(events) == 0 {
		return
	}
	var list []savedEvent
	for _, e := range events {
		if digest := e.Digests[b.String()]; digest != nil {
			list = append(list, savedEvent{e.PCR, hex.EncodeToString(digest), e.String()})
		}
	}
	text, err := json.Marshal(list)
	path := p.logFile(policy)
	if err != nil || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	removeOldLogs(filepath.Dir(path))
	tmp := path + ".new"
	if os.WriteFile(tmp, text, 0o600) != nil || os.Rename(tmp, path) != nil {
		_ = os.Remove(tmp) // the disk is full: half a log is of no use
	}
}

func removeOldLogs(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) < maxSavedLogs {
		return
	}
	age := func(e os.DirEntry) int64 {
		if info, err := e.Info(); err == nil {
			return info.ModTime().UnixNano()
		}
		return 0
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return int(age(a)>>20) - int(age(b)>>20) })
	for _, e := range entries[:len(entries)-maxSavedLogs+1] {
		_ = os.Remove(filepath.Join(folder, e.Name()))
	}
}

// savedLog returns the events of a PCR at the enrolment with a policy, if they
// were kept and lead to the recorded value.
func (p Paths) savedLog(policy chip.Digest, b chip.Bank, pcr int, value []byte) (old eventlog.Old, ok bool) {
	old, events, ok := p.savedEvents(policy, b, pcr)
	return old, ok && bytes.Equal(eventlog.Replay(events, b.String(), pcr), value)
}

// savedEvents are those of a PCR at the enrolment with a policy; ok is false if no log
// was kept of it.
func (p Paths) savedEvents(policy chip.Digest, b chip.Bank, pcr int) (old eventlog.Old, events []eventlog.Event, ok bool) {
	text, err := readLog(p.logFile(policy))
	var list []savedEvent
	if err != nil || json.Unmarshal(text, &list) != nil {
		return old, nil, false
	}
	for _, s := range list {
		digest, err := hex.DecodeString(s.Digest)
		if err == nil && s.PCR == pcr {
			events = append(events, eventlog.Event{PCR: pcr, Digests: map[string][]byte{b.String(): digest}})
			old.Names = append(old.Names, s.Event)
		}
	}
	old.Prefixes = eventlog.Prefixes(events, b.String(), pcr)
	return old, events, true
}
