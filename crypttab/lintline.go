package crypttab

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// checkFields looks at a line as it stands in the file and reports whether its fields are
// not what was meant: then nothing more is said about it, since the rest follows from
// that.
func (l *linter) checkFields(e *Entry, fields []string) (wrong bool) {
	for i, f := range fields {
		switch what, unseen := unseen(f); {
		case unseen && i == 0 && e.Line == 1 && strings.HasPrefix(f, "\ufeff"):
			l.add(Bad, e, "line", "%w", errByteOrder)
			return true
		case unseen:
			l.add(Bad, e, "line", "%s stands in %q: write a space or a tab, or nothing", what, f)
			return true
		case i < 4 && opensQuote(f):
			return l.quoted(e, fields[i:])
		}
	}
	return false
}

// opensQuote reports whether a field begins a quotation that goes on in the next one.
func opensQuote(field string) bool {
	if _, value, tagged := strings.Cut(field, "="); tagged {
		field = value
	}
	return field != "" && strings.ContainsRune(`"'`, rune(field[0])) && (len(field) == 1 || field[len(field)-1] != field[0])
}

// quoted explains a quotation that was to hold a space.
func (l *linter) quoted(e *Entry, rest []string) bool {
	tag, value, tagged := strings.Cut(rest[0], "=")
	if !tagged {
		tag, value = "", rest[0]
	}
	mark := value[:1]
	words := []string{strings.TrimPrefix(value, mark)}
	closed := false
	for _, f := range rest[1:] {
		words = append(words, strings.TrimSuffix(f, mark))
		if closed = strings.HasSuffix(f, mark); closed {
			break
		}
	}
	if !closed {
		return false
	}
	meant := strings.Join(words, `\x20`)
	if tagged {
		meant = tag + "=" + meant
	}
	l.add(Bad, e, "line", "quotes do not hold fields together; write %s, or for a device better its UUID= or PARTUUID=", meant)
	return true
}

// checkThird explains a third field that is not a key file, and reports whether it did.
func (l *linter) checkThird(e *Entry, o *Options, fields []string) bool {
	path := e.Key.Path
	switch {
	case o.has("keyscript"):
		return true // what it means is for the program, which is reported
	case path == "" || strings.HasPrefix(path, "/"):
		return false
	case len(fields) < 5 && l.areOptions(fields[2]):
		l.add(Bad, e, "key", `%q stands where the key file belongs, so the options are not read; write: %s %s none %s`, fields[2], fields[0], fields[1],
			strings.Join(fields[2:], ","))
	case slices.Contains([]string{"–", "—", "−", "--"}, path):
		l.add(Bad, e, "key", `%q is not the dash that stands for no key file; write - or none`, path)
	default:
		l.add(Bad, e, "key", "%q is not absolute and will be ignored", path)
	}
	return true
}

// areOptions reports whether a field is a list of known options.
func (l *linter) areOptions(field string) bool {
	words, err := rawWords(field)
	return err == nil && !slices.ContainsFunc(words, func(w rawWord) bool {
		return w.text != "" && l.grammar.find(splitWord(w.text)) == nil
	})
}

// checkHeaderFile looks at a detached header, and reports whether it is missing.
func (l *linter) checkHeaderFile(e *Entry, o *Options) bool {
	at := o.HeaderLocation()
	if at.Path == "" || at.Device != nil || strings.HasPrefix(at.Path, "/dev/") {
		return false
	}
	info, err := l.stat(at.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.add(Bad, e, "options: header=", "%s does not exist", at.Path)
	case err != nil:
		l.add(Suspect, e, "options: header=", "%w", err)
	case info.IsDir():
		l.add(Bad, e, "options: header=", "%s is a directory", at.Path)
	default:
		return false
	}
	return true
}

// checkDevice wants each device on one line only: it can be attached once.
// It reports whether this one was on an earlier line.
func (l *linter) checkDevice(e *Entry, o *Options, device string) bool {
	if !o.luks() || e.Source.Value == "" {
		return false
	}
	for _, key := range []string{device, deviceKey(e.Source)} {
		if key == "" {
			continue
		}
		if first := l.devices[key]; first != nil && first != e {
			l.add(Bad, e, "device", "%s is the device of %q in line %d already, and can be attached once", e.Source, first.Name, first.Line)
			return true
		}
		l.devices[key] = e
	}
	return false
}

// otherTag says that what is there has the value of the reference under another tag, and
// reports whether that is so.
func (l *linter) otherTag(e *Entry) bool {
	r := e.Source
	for _, tag := range tags {
		other := r
		if other.Tag = tag; r.Tag == TagPath || tag == r.Tag {
			continue
		}
		if _, err := l.stat(other.UdevLinks()[0]); err == nil {
			l.add(Bad, e, "device", "%s is not there, %s is: write that", r, other)
			return true
		}
	}
	return false
}

// deviceKey is a reference in one spelling.
func deviceKey(r DeviceRef) string { return r.UdevLinks()[0] }
