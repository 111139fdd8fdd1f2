package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Stream is standard output or standard error with what is known of its other
// end. Everything written to it is escaped (see [Escape]) but for line ends, so
// that text from headers and devices is harmless in any message. Several
// goroutines may write to it.
type Stream struct {
	// Terminal says that a person reads along.
	Terminal bool
	// Colour says that escape sequences for colour are welcome.
	Colour Palette
	ascii  bool       // a terminal with another character set than UTF-8
	mu     sync.Mutex // for escape
	raw    io.Writer
	file   *os.File // nil for other writers
	escape escapeWriter
	// document says that JSON was printed.
	document bool
}

// NewStream looks at a file and the environment: colour only goes to terminals,
// and not when NO_COLOR, SYSTEMD_COLORS=no or TERM=dumb forbid it.
func NewStream(f *os.File) *Stream {
	s := StreamTo(f)
	s.file = f
	s.Terminal = IsTerminal(int(f.Fd()))
	s.Colour = Palette(s.Terminal) && Colour()
	s.ascii = s.Terminal && !UTF8()
	return s
}

// StreamTo is a stream without colour to any writer.
func StreamTo(w io.Writer) *Stream {
	s := &Stream{}
	s.Via(w)
	return s
}

// Via sends what is written to the stream through another writer from now on,
// such as one that keeps a prompt on the same terminal intact. Call it before the
// stream is shared.
func (s *Stream) Via(w io.Writer) { s.raw, s.escape = w, escapeWriter{w: w, escape: s.Escape} }

// Escape is [Escape], and [ASCII] where the terminal shows nothing else.
func (s *Stream) Escape(text string) string {
	text = Escape(text)
	if s.ascii {
		text = ASCII(text)
	}
	return text
}

// Write escapes p but for its line ends.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.escape.Write(p)
}

// Linef prints one escaped line. Line ends inside it are escaped too. A terminal gets it
// wrapped at words, unless it has columns, with two blanks between them.
func (s *Stream) Linef(format string, args ...any) {
	_, _ = io.WriteString(s.raw, s.wrapped(0, s.Escape(fmt.Sprintf(format, args...)))+"\n")
}

// Pasted prints one escaped line that is pasted elsewhere: it is never broken.
func (s *Stream) Pasted(line string) { _, _ = io.WriteString(s.raw, s.Escape(line)+"\n") }

// Labelled prints "label: text" like Linef, with the label in a style.
func (s *Stream) Labelled(style Style, label, text string) {
	text = s.wrapped(Width(label)+len(": "), s.Escape(text))
	_, _ = io.WriteString(s.raw, s.Colour.Paint(style, label+":")+" "+text+"\n")
}

// Raw is the unescaped writer below, for output that is ours from the first byte
// to the last: a QR code, a recovery key.
func (s *Stream) Raw() io.Writer { return s.raw }

// Discards reports whether everything that is written is thrown away, because the
// stream is the null device. The Go runtime opens it in place of a standard
// stream that was closed (`>&-`), so that no write fails.
func (s *Stream) Discards() bool {
	const nullMajor, nullMinor = 1, 3 // Linux Documentation/admin-guide/devices.txt
	st, ok := s.stat()
	return ok && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(nullMajor, nullMinor)
}

// Sync waits until what was written is on the disk, if the stream is a regular
// file; its errors include those of earlier writes.
func (s *Stream) Sync() error {
	if st, ok := s.stat(); !ok || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return s.file.Sync()
}

func (s *Stream) stat() (st unix.Stat_t, ok bool) {
	if s.file == nil {
		return st, false
	}
	return st, unix.Fstat(int(s.file.Fd()), &st) == nil
}

// IsTerminal reports whether a file descriptor is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// colourWanted follows systemd's get_color_mode for a terminal: SYSTEMD_COLORS
// decides if it is a known word, then NO_COLOR and a dumb terminal forbid.
// Unlike systemd, SYSTEMD_COLORS=yes does not colour files and pipes.
func colourWanted(getenv func(string) string) bool {
	value := getenv("SYSTEMD_COLORS")
	if on, err := parseBool(value); err == nil {
		return on
	}
	if value == "16" || value == "256" || value == "24bit" {
		return true
	}
	return getenv("NO_COLOR") == "" && !dumb(getenv("TERM"))
}

// Emoji reports whether symbols such as a key may be shown, by systemd's rule:
// SYSTEMD_EMOJI decides; else the terminal must be neither dumb nor the Linux
// console, whose font has none, and the locale must use UTF-8.
func Emoji() bool { return emojiWanted(os.Getenv) }

func emojiWanted(getenv func(string) string) bool {
	if on, err := parseBool(getenv("SYSTEMD_EMOJI")); err == nil {
		return on
	}
	term := getenv("TERM")
	return !dumb(term) && term != "linux" && utf8Locale(getenv)
}

// UTF8 reports whether the locale uses UTF-8, so that half blocks and the like can
// be printed.
func UTF8() bool { return utf8Locale(os.Getenv) }

// utf8Locale reports whether text may leave ASCII. A process without any locale,
// as in an initrd, is taken for UTF-8, as systemd does.
func utf8Locale(getenv func(string) string) bool {
	if on, err := parseBool(getenv("SYSTEMD_UTF8")); err == nil {
		return on
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := getenv(name); value != "" {
			value = strings.ToLower(value)
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return true
}

func dumb(term string) bool { return term == "" || term == "dumb" }

// parseBool knows systemd's words for a boolean, in any case.
func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, strconv.ErrSyntax
}

// Style is how a piece of text looks where colour is welcome.
type Style string

// The styles in use; the values are SGR parameters of ECMA-48 §8.3.117.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "1;31"
	Green  Style = "32"
	Yellow Style = "33"
	Blue   Style = "34"
)

// Palette says whether colour is wanted, and paints.
type Palette bool

// Colour is the palette for a terminal that the process opened itself.
func Colour() Palette { return Palette(colourWanted(os.Getenv)) }

// Paint escapes text and styles it where colour is wanted. The result is for
// [Stream.Raw].
func (p Palette) Paint(style Style, text string) string {
	text = Escape(text)
	if !p || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}
