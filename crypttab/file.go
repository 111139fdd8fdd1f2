package crypttab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// DefaultPath is where the file lies unless $SYSTEMD_CRYPTTAB names another.
const DefaultPath = "/etc/crypttab"

const (
	maxLine = 1 << 20 // systemd's LONG_LINE_MAX
	maxFile = 8 << 20 // ours; the largest real one has a few hundred lines
)

// File is a crypttab as read. Nothing in it is checked beyond the grammar.
type File struct {
	Path    string
	Entries []Entry
	// Warnings are the lines that were skipped and the fields that were dropped.
	Warnings []*SyntaxError

	fields map[int][]string // of each entry as they stand there, by line
}

// Entry is one volume to attach.
type Entry struct {
	File string // "/proc/cmdline" for volumes of the kernel command line
	Line int    // 0 there
	// Name is the mapping name, unchecked: see [CheckName].
	Name   string
	Source DeviceRef
	// Key is zero when the field is missing, "-" or "none".
	Key Location
	// Options is the fourth field with C escapes decoded but not split, because
	// splitting depends on "\,": see [ParseOptions]. "" when missing, "-" or "none".
	Options string
}

// Errorf makes a SyntaxError that points to the entry.
func (e *Entry) Errorf(field, format string, args ...any) *SyntaxError {
	return &SyntaxError{File: e.File, Line: e.Line, Field: field, Err: fmt.Errorf(format, args...)}
}

// Read reads a crypttab. A file that does not exist is an empty one, as for
// systemd; other errors are returned.
func Read(path string) (*File, error) { return read(path, func(fs.FileInfo) error { return nil }) }

// ReadTrusted is Read for places where the file may come from an attacker, such as
// an unsigned initrd: a file or folder that others than root can change gives
// [ErrUntrusted]. A crypttab decides which key files are read and which checks are
// made, so whoever writes it can attach a volume of his own.
func ReadTrusted(path string) (*File, error) {
	folder, err := os.Stat(filepath.Dir(path))
	if err == nil {
		err = trusted(folder)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &SyntaxError{File: path, Field: "folder " + filepath.Dir(path), Err: err}
	}
	return read(path, trusted)
}

// trusted reports ErrUntrusted unless only root can write.
func trusted(info fs.FileInfo) error {
	owner := info.Sys().(*syscall.Stat_t).Uid
	if owner == 0 && info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return fmt.Errorf("%w: owner %d, mode %04o", ErrUntrusted, owner, info.Mode().Perm())
}

func read(path string, check func(fs.FileInfo) error) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if errors.Is(err, fs.ErrNotExist) {
		return &File{Path: path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading crypttab: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, &SyntaxError{File: path, Err: err}
	}
	return Parse(f, path)
}

// Parse reads a crypttab; path is used in messages only. Lines that systemd skips
// are skipped, with a warning. Errors are those of r, and lines and files that are
// too long to be meant.
func Parse(r io.Reader, path string) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading crypttab: %w", err)
	}
	if len(text) > maxFile {
		return nil, &SyntaxError{File: path, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	if isUTF16(text) {
		return nil, &SyntaxError{File: path, Err: errUTF16}
	}
	f := &File{Path: path}
	for line := 1; len(text) > 0; line++ {
		var content []byte
		content, text = cutLine(text)
		if len(content) > maxLine {
			return nil, &SyntaxError{File: path, Line: line, Err: fmt.Errorf("longer than %d bytes", maxLine)}
		}
		f.parseLine(line, string(content))
	}
	return f, nil
}

var (
	errUTF16     = errors.New("this is UTF-16; save the file as UTF-8")
	errByteOrder = errors.New("the file begins with a byte order mark, which belongs to its first word: save it as UTF-8 without one")
	errOneField  = errors.New("no device: want NAME DEVICE [KEY] [OPTIONS]; the line is ignored")
)

// isUTF16 looks at the first characters, which are ASCII in every real crypttab.
func isUTF16(text []byte) bool {
	return len(text) >= 2 && (text[0] == 0xff && text[1] == 0xfe || text[0] == 0xfe && text[1] == 0xff) ||
		len(text) >= 4 && (text[1] == 0 && text[3] == 0 && text[0] != 0 || text[0] == 0 && text[2] == 0 && text[1] != 0)
}

// cutLine ends a line where systemd's read_line does: at a newline, a carriage
// return, a pair of both in either order, or a NUL.
func cutLine(text []byte) (line, rest []byte) {
	i := bytes.IndexAny(text, "\n\r\x00")
	if i < 0 {
		return text, nil
	}
	line, rest = text[:i], text[i+1:]
	first := text[i]
	if first != 0 && len(rest) > 0 && (rest[0] == '\n' || rest[0] == '\r') && rest[0] != first {
		rest = rest[1:]
		first = '\n' + '\r' // both seen
	}
	if first != 0 && len(rest) > 0 && rest[0] == 0 {
		rest = rest[1:]
	}
	return line, rest
}

// parseLine adds the entry of one line, if it has one.
func (f *File) parseLine(number int, text string) {
	text = strings.Trim(text, " \t\n\r")
	if text == "" || text[0] == '#' {
		return
	}
	fields := strings.FieldsFunc(text, func(r rune) bool { return r < 0x80 && strings.ContainsRune(spaces, r) })
	if len(fields) < 2 {
		why := errOneField
		if number == 1 && strings.HasPrefix(text, "\ufeff") {
			why = errByteOrder
		}
		f.warn(number, "line", why)
		return
	}
	// Unlike systemd, which drops the rest without a word: "luks, discard" is a
	// common mistake.
	if len(fields) > 4 {
		fields[3] = strings.TrimSuffix(fields[3], ",") // which would be said as another mistake
		help := "there are no spaces between options; write " + fields[3] + "," + fields[4]
		if fields[4][0] == '#' {
			help = "a comment stands on a line of its own"
		}
		f.warn(number, "line", fmt.Errorf("ignoring %q and what follows: %s", fields[4], help))
	}
	if f.fields == nil {
		f.fields = map[int][]string{}
	}
	f.fields[number] = fields
	fields = append(slices.Clone(fields), "", "")
	e := Entry{File: f.Path, Line: number, Name: unescape(fields[0]), Source: ParseDeviceRef(fields[1])}
	if !absent(unescape(fields[2])) {
		e.Key = ParseLocation(fields[2])
	}
	if options := unescape(fields[3]); !absent(options) {
		e.Options = options
	}
	f.Entries = append(f.Entries, e)
}

func (f *File) warn(line int, field string, reason error) {
	f.Warnings = append(f.Warnings, &SyntaxError{File: f.Path, Line: line, Field: field, Err: reason})
}

// absent reports whether a key or options field means none (systemd mangle_none).
func absent(field string) bool { return field == "" || field == "-" || field == "none" }
