package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/internal/durable"
	"luksmith/tokens"
)

// reportDir holds one file for each volume, NAME.json, mode 0600: device names and
// failures are nobody's business but root's.
const reportDir = "/run/luksmith"

// maxReport bounds what status reads.
const maxReport = 1 << 20

// report is what /run/luksmith/NAME.json says about the last attempt to attach a
// volume. It holds no secrets.
type report struct {
	Version int     `json:"version"` // of this format: 1
	Name    string  `json:"name"`
	Source  string  `json:"source"`           // as crypttab or the command named it
	Device  string  `json:"device,omitempty"` // the node it was
	UUID    string  `json:"uuid,omitempty"`
	Started string  `json:"started"` // RFC 3339, UTC
	Result  string  `json:"result"`  // resultAttached, resultActive or resultFailed
	Exit    int     `json:"exit"`    // status of cryptsetup-unit
	Error   string  `json:"error,omitempty"`
	Opened  *opened `json:"opened,omitempty"`
	// Identity is the value for fixate-volume-key=.
	Identity string `json:"identity,omitempty"`
	// Stages in the order in which they ended.
	Stages   []stage         `json:"stages"`
	Failures []failureReport `json:"failures"`
	Warnings []string        `json:"warnings,omitempty"`

	mu    sync.Mutex
	begun time.Time
}

// The results.
const (
	resultAttached = "attached"
	resultActive   = "already active"
	resultFailed   = "failed"
)

// opened says what opened the volume.
type opened struct {
	By      string `json:"by"` // "passphrase", "tpm2 token", "key file /k"
	Keyslot *int   `json:"keyslot,omitempty"`
	Token   *int   `json:"token,omitempty"`
	// Type and Label are those of the keyslot: "tpm2", "laptop".
	Type  string `json:"type,omitempty"`
	Label string `json:"label,omitempty"`
}

// stage is a part of the work and how long it took.
type stage struct {
	Name   string `json:"name"` // "device", "header", "unlock", "measure", "map"
	Millis int64  `json:"ms"`
}

// failureReport is a way that did not open the volume.
type failureReport struct {
	Way    string `json:"way"`
	Error  string `json:"error"`
	Exit   int    `json:"exit"` // the status that this failure alone would give
	Millis int64  `json:"ms"`
}

func newReport(name, source string) *report {
	now := time.Now()
	return &report{Version: 1, Name: name, Source: source, Started: now.UTC().Format(time.RFC3339), begun: now,
		Stages: []stage{}, Failures: []failureReport{}}
}

// stage starts a clock; the returned function stops it.
func (r *report) stage(name string) (end func()) {
	start := time.Now()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.Stages = append(r.Stages, stage{name, time.Since(start).Milliseconds()})
	}
}

// warn notes a warning that was printed.
func (r *report) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Warnings = append(r.Warnings, text)
}

func (r *report) addFailures(list []*contest.Failure) {
	for _, f := range list {
		r.Failures = append(r.Failures, failureReport{f.Way, f.Err.Error(), cli.ExitStatus(f.Err), f.Took.Milliseconds()})
	}
}

// openedBy notes what opened the volume; slot may be nil.
func (r *report) openedBy(f *contest.Found, slot *tokens.Slot) {
	r.Opened = &opened{By: f.By}
	if f.Slot >= 0 {
		r.Opened.Keyslot = &f.Slot
	}
	if f.Token >= 0 {
		r.Opened.Token = &f.Token
	}
	if slot != nil {
		r.Opened.Type, r.Opened.Label = slot.Kind, slot.Label
	}
}

// finish notes the result.
func (r *report) finish(result string, err error) {
	r.Result, r.Exit = result, cli.ExitStatus(err)
	if err != nil {
		r.Result, r.Error = resultFailed, err.Error()
	}
}

// save writes the report in place of an older one.
func (r *report) save(root string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing report: %w", err)
	}
	path := reportPath(root, r.Name)
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		err = durable.Replace(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing report: %w", err)
	}
	return nil
}

// reportPath needs a checked name: see crypttab.CheckName.
func reportPath(root, name string) string {
	return filepath.Join(root, reportDir, name+".json")
}

// readReport returns nil without an error if there is no report.
func readReport(root, name string) (*report, error) {
	path := reportPath(root, name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxReport {
		err = fmt.Errorf("%d bytes are too many", info.Size())
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	r := &report{}
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		return nil, fmt.Errorf("reading report %s: %w", path, err)
	}
	return r, nil
}
