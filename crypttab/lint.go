package crypttab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	Bad     Level = "error"   // the volume will not be attached, or not as written
	Suspect Level = "warning" // something is ignored or dangerous
	Info    Level = "note"    // worth knowing
)

// Finding is one result of [Lint].
type Finding struct {
	Level Level
	*SyntaxError
}

// Text is the finding in one line, in the form that compilers use:
// "/etc/crypttab:3: warning: options: …".
func (f Finding) Text() string { return f.place() + string(f.Level) + ": " + f.what() }

// Message is the finding without its place: "options: …".
func (f Finding) Message() string { return f.what() }

// VolumeFacts is what Lint may know of a volume's header.
type VolumeFacts struct {
	LUKS       int   // version, 1 or 2
	Keyslots   []int // not known for version 1
	TokenTypes []string
	// Device is the node, the same for every name of the device; "" if not known.
	Device string
	// PINTypes are the types of which every token wants a PIN.
	PINTypes []string
}

// ErrNoVolume is for LintOptions.Facts: the device is there and holds no volume.
var ErrNoVolume = errors.New("not a LUKS volume")

// LintOptions says where Lint looks besides the text.
type LintOptions struct {
	// Stat looks at key files and at the crypttab; os.Stat when nil.
	Stat func(path string) (fs.FileInfo, error)
	// Facts reads the header of a volume. An error is shown as a note, because the
	// device may be absent now and there at boot. nil: headers are not looked at.
	Facts func(e *Entry, o *Options) (*VolumeFacts, error)
	// Grammar has the options; [Table] when nil.
	Grammar Grammar
}

// Lint checks a crypttab beyond its grammar. The findings come in the order of the
// lines.
func Lint(f *File, o *LintOptions) []Finding {
	if o == nil {
		o = &LintOptions{}
	}
	l := &linter{stat: o.Stat, facts: o.Facts, grammar: o.Grammar, lines: map[string]int{}, devices: map[string]*Entry{}, broken: map[int]bool{}}
	if l.grammar == nil {
		l.grammar = Table
	}
	if l.stat == nil {
		l.stat = os.Stat
	}
	l.checkFile(f)
	for i := range f.Entries {
		l.checkEntry(&f.Entries[i], f.fields[f.Entries[i].Line])
	}
	for _, w := range f.Warnings {
		switch {
		case errors.Is(w, errOneField), errors.Is(w, errByteOrder):
			l.findings = append(l.findings, Finding{Bad, w})
		case !l.broken[w.Line]:
			l.findings = append(l.findings, Finding{Suspect, w})
		}
	}
	order := make([]*Finding, len(l.findings)) // the boot helper has the code that sorts pointers
	for i := range l.findings {
		order[i] = &l.findings[i]
	}
	slices.SortStableFunc(order, func(a, b *Finding) int { return a.Line - b.Line })
	sorted := l.findings[:0:0]
	for _, f := range order {
		if n := len(sorted); n == 0 || sorted[n-1].Text() != f.Text() { // one message for one cause
			sorted = append(sorted, *f)
		}
	}
	return sorted
}

type linter struct {
	stat     func(string) (fs.FileInfo, error)
	facts    func(*Entry, *Options) (*VolumeFacts, error)
	grammar  Grammar
	devices  map[string]*Entry
	broken   map[int]bool   // lines whose fields are not what was meant
	lines    map[string]int // name to the line that defined it
	findings []Finding
}

func (l *linter) add(level Level, e *Entry, field, format string, args ...any) {
	l.findings = append(l.findings, Finding{level, e.Errorf(field, format, args...)})
}

func (l *linter) checkFile(f *File) {
	info, err := l.stat(f.Path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o022 != 0 {
		l.findings = append(l.findings, Finding{Bad, &SyntaxError{File: f.Path,
			Err: fmt.Errorf("%w: mode %04o", ErrUntrusted, info.Mode().Perm())}})
	}
}

func (l *linter) checkEntry(e *Entry, fields []string) {
	if l.checkFields(e, fields) {
		l.broken[e.Line] = true
		return
	}
	if first, ok := l.lines[e.Name]; ok {
		l.add(Bad, e, "name", "%q is already defined in line %d; this line is ignored", e.Name, first)
		return
	}
	l.lines[e.Name] = e.Line
	if err := CheckName(e.Name); err != nil {
		l.add(Bad, e, "name", "%w", err)
	}
	if err := e.Source.Check(); err != nil {
		l.add(Bad, e, "device", "%w", err)
	}
	options, warnings, err := l.grammar.ParseOptions(e.Options)
	for _, w := range warnings {
		level := Suspect
		switch {
		case errors.Is(w, errMeantToken):
			level = Bad
		case errors.Is(w, errOfOthers):
			level = Info
		}
		l.findings = append(l.findings, Finding{level, at(e, w)})
	}
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		l.findings = append(l.findings, Finding{Bad, at(e, syntax)})
		options = defaults()
		if !l.checkThird(e, options, fields) {
			l.checkKey(e, options)
		}
		return
	}
	l.checkOptions(e, options)
	if !l.checkThird(e, options, fields) {
		l.checkKey(e, options)
	}
	if l.checkDevice(e, options, "") {
		return
	}
	if small, ok := e.Source.inSmallLetters(); ok {
		l.add(Suspect, e, "device", "udev writes UUIDs in small letters, so systemd waits for this one in vain: write %s", small)
	}
	if l.checkHeaderFile(e, options) {
		return
	}
	l.checkHeader(e, options)
}

// at adds file and line to an error of ParseOptions.
func at(e *Entry, s *SyntaxError) *SyntaxError {
	return &SyntaxError{File: e.File, Line: e.Line, Field: s.Field, Err: s.Err}
}

// checkKey looks at a key file that lies on this system.
func (l *linter) checkKey(e *Entry, o *Options) {
	path := e.Key.Path
	switch {
	case path == "":
		return
	case e.Key.Device != nil:
		return
	}
	info, err := l.stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.add(Suspect, e, "key", "%s does not exist now", path)
	case err != nil:
		l.add(Suspect, e, "key", "%w", err)
	case info.IsDir():
		l.add(Bad, e, "key", "%s is a directory", path)
	case info.Mode()&fs.ModeNamedPipe != 0:
		l.add(Bad, e, "key", "%s is a FIFO, which nobody would fill at boot", path)
	case info.Mode()&fs.ModeSocket != 0:
		if o.KeyFileOffset != 0 {
			l.add(Suspect, e, "key", "%s is a socket, which keyfile-offset= keeps from being used", path)
		}
	case info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0:
		l.add(Suspect, e, "key", "%s can be read by others: mode %04o", path, info.Mode().Perm())
	}
}

// checkHeader compares the options with the tokens and keyslots of the volume.
func (l *linter) checkHeader(e *Entry, o *Options) {
	if l.facts == nil || !o.luks() || e.Source.Check() != nil {
		return
	}
	facts, err := l.facts(e, o)
	switch {
	case errors.Is(err, ErrNoVolume):
		l.add(Bad, e, "device", "nothing to attach: %w", err)
		return
	case errors.Is(err, fs.ErrNotExist) && o.Header != "" && (e.Source.Tag == TagUUID || e.Source.Tag == TagLabel):
		l.add(Suspect, e, "device", "%s is not there now; a disk whose header is elsewhere has none: name it by PARTUUID= or path", e.Source)
		return
	case errors.Is(err, fs.ErrNotExist) && l.otherTag(e):
		return
	case errors.Is(err, fs.ErrNotExist): // it may be there at boot, or in another machine
		l.add(Info, e, "device", "%s is not there now, so its header was not checked", e.Source)
		return
	case err != nil:
		l.add(Info, e, "device", "the header was not checked: %w", err)
		return
	}
	l.checkDevice(e, o, facts.Device)
	l.checkTokens(e, o, facts)
	if o.KeySlot != AnySlot && facts.LUKS == 2 && !slices.Contains(facts.Keyslots, o.KeySlot) {
		l.add(Bad, e, "options: key-slot=", "keyslot %d of %s is empty", o.KeySlot, e.Source)
	}
}

// checkTokens wants a token in the header for what the options ask for.
func (l *linter) checkTokens(e *Entry, o *Options, facts *VolumeFacts) {
	if e.Key.Path != "" {
		return // it may hold what replaces the token
	}
	missing := false
	for _, w := range o.Words {
		row := l.grammar.find(w)
		if row.Selects && o.Headless && slices.Contains(facts.PINTypes, row.TokenType) {
			l.add(Suspect, e, "options: headless", "the %s token wants a PIN, which nobody can be asked for: store it as a credential", row.TokenType)
		}
		if row.Selects && !row.replacesToken(w) && !slices.Contains(facts.TokenTypes, row.TokenType) {
			l.add(Bad, e, "options: "+row.Name+"=", "the header of %s has no %s token", e.Source, row.TokenType)
			missing = true
		}
	}
	if o.TokenOnly && !missing && !slices.ContainsFunc(l.grammar, func(row Option) bool { return row.Selects && slices.Contains(facts.TokenTypes, row.TokenType) }) {
		l.add(Bad, e, "options: luksmith-token-only", "the header of %s has no token, so nothing can open the volume", e.Source)
	}
}
