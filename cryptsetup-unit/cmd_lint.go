package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// lintOptions are those of crypttab lint.
type lintOptions struct {
	json    cli.JSONMode
	verbose bool
}

// lintVerb is crypttab lint [FILE].
func lintVerb() ([]flag, func(*app, []string) error) {
	o := &lintOptions{}
	flags := []flag{{"json", o.json.Type(), "print one JSON document", o.json.Set},
		{"verbose", "", "print what is worth knowing, too", func(string) error { o.verbose = true; return nil }}}
	return flags, func(a *app, args []string) error { return a.lint(args, o) }
}

// headerWait bounds the look at one header: lint must not hang on a dead disk.
const headerWait = 5 * time.Second

// lintedFile is what was found in one file, also as JSON.
type lintedFile struct {
	Path     string        `json:"path"`
	Volumes  int           `json:"volumes"`
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
	Findings []lintFinding `json:"findings"`
	lines    []string
}

type lintFinding struct {
	Level   crypttab.Level `json:"level"`
	Line    int            `json:"line,omitempty"` // missing for the whole file
	Field   string         `json:"field,omitempty"`
	Message string         `json:"message"`
}

// lint prints what is wrong with a crypttab, or with those of this system. The exit
// status is 1 if a volume will not be attached as written.
func (a *app) lint(args []string, o *lintOptions) error {
	var list []*lintedFile
	for _, path := range a.lintPaths(args) {
		file, err := a.lintFile(path, o)
		if err != nil {
			return err
		}
		list = append(list, file)
	}
	bad := 0
	for _, f := range list {
		bad += f.Errors
		if !o.json.On() {
			for _, line := range f.lines {
				a.out.Linef("%s", line)
			}
			a.out.Linef("%s: %s", f.Path, f.summary())
		}
	}
	if o.json.On() {
		if err := a.out.JSON(o.json, map[string]any{"files": list}); err != nil {
			return err
		}
	}
	if bad > 0 {
		return cli.ErrSaid // by the last line
	}
	return nil
}

// lintPaths are the files to look at: the one that was named, or those of the system and
// of the initrd, where mkinitcpio takes it from.
func (a *app) lintPaths(args []string) []string {
	if len(args) > 0 {
		return args
	}
	path := a.crypttabPath("")
	initrd := path + ".initramfs"
	if _, err := os.Stat(initrd); err != nil {
		return []string{path}
	}
	if _, err := os.Stat(path); err != nil {
		return []string{initrd}
	}
	return []string{path, initrd}
}

// missingCrypttab is the error about a file that is not there.
type missingCrypttab struct{ error }

func (e *missingCrypttab) Unwrap() error { return e.error }

// Hint is printed below the error.
func (e *missingCrypttab) Hint() string {
	return "a system that attaches no volume at boot needs no crypttab"
}

func (a *app) lintFile(path string, o *lintOptions) (*lintedFile, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, &missingCrypttab{fmt.Errorf("reading crypttab: %w", err)} // only at boot is a missing one fine
	}
	file, err := crypttab.Read(path)
	if err != nil {
		return nil, err
	}
	resolve := a.newDevices().resolve
	findings := crypttab.Lint(file, &crypttab.LintOptions{Grammar: a.grammar(), Facts: func(e *crypttab.Entry, o *crypttab.Options) (*crypttab.VolumeFacts, error) {
		return a.headerFacts(resolve, e, o)
	}})
	l := &lintedFile{Path: path, Volumes: len(file.Entries), Findings: []lintFinding{}}
	for _, f := range findings {
		switch f.Level {
		case crypttab.Bad:
			l.Errors++
		case crypttab.Suspect:
			l.Warnings++
		default:
			if !o.verbose {
				continue
			}
		}
		l.lines = append(l.lines, f.Text())
		l.Findings = append(l.Findings, lintFinding{f.Level, f.Line, f.Field, f.Err.Error()})
	}
	return l, nil
}

// summary is "2 volumes, no mistakes".
func (l *lintedFile) summary() string {
	text := counted(l.Volumes, "volume")
	if l.Errors+l.Warnings == 0 {
		return text + ", no mistakes"
	}
	if l.Errors > 0 {
		text += ", " + counted(l.Errors, "error")
	}
	if l.Warnings > 0 {
		text += ", " + counted(l.Warnings, "warning")
	}
	return text
}

// counted is "1 volume" or "2 volumes".
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// headerFacts reads the header of a volume if its device is there.
func (a *app) headerFacts(resolve resolveFunc, e *crypttab.Entry, o *crypttab.Options) (*crypttab.VolumeFacts, error) {
	device, err := resolve(e.Source)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(a.ctx, headerWait)
	defer stop()
	header := o.HeaderLocation()
	if header.Device != nil {
		return nil, fmt.Errorf("it is a file on %s", header.Device)
	}
	d, err := luks2.Open(device, &luks2.OpenOptions{Header: header.Path, ReadOnly: true})
	if err != nil {
		return nil, noVolume(err)
	}
	defer d.Close()
	h, err := d.Header(ctx)
	f := &crypttab.VolumeFacts{LUKS: 2, Device: canonical(device)}
	if errors.Is(err, luks2.ErrLUKS1) {
		f.LUKS = 1
		return f, nil
	}
	if err != nil {
		return nil, noVolume(err)
	}
	for _, k := range h.Keyslots {
		f.Keyslots = append(f.Keyslots, k.ID)
	}
	types, without := a.types(), map[string]bool{}
	for _, t := range h.Heeded() {
		f.TokenTypes = append(f.TokenTypes, t.Type)
		without[t.Type] = without[t.Type] || !wantsPIN(types, t)
	}
	for typ, some := range without {
		if !some {
			f.PINTypes = append(f.PINTypes, typ)
		}
	}
	return f, nil
}

// wantsPIN reports whether a token asks somebody for a PIN.
func wantsPIN(types tokens.Set, t luks2.Token) bool {
	h := types.ByType(t.Type)
	if h == nil {
		return false
	}
	d, err := h.Describe(t)
	return err == nil && slices.Contains(d.Requires, "PIN")
}

// notVolume is an error about a device that is there and holds something else.
type notVolume struct{ error }

func (e *notVolume) Unwrap() []error { return []error{crypttab.ErrNoVolume, e.error} }

// noVolume marks such errors.
func noVolume(err error) error {
	if _, malformed := errors.AsType[*luks2.FormatError](err); malformed || errors.Is(err, luks2.ErrNotLUKS2) {
		return &notVolume{err}
	}
	return err
}

// canonical is the node that a link leads to.
func canonical(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}
