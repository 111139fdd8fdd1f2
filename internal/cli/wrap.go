package cli

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Wrap breaks escaped text at blanks into lines of at most so many columns. A word that
// is longer has a line of its own.
func Wrap(text string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= columns:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}

// Columns is how wide the terminal is, 0 for other streams and where it does not say.
func (s *Stream) Columns() int {
	if !s.Terminal || s.file == nil {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(s.file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// wrapIndent stands before the further lines of a message.
const wrapIndent = "  "

// leastColumns is how narrow a terminal may be for text to be wrapped.
const leastColumns = 40

// wrapped breaks a message that begins behind so many columns of other text. Other
// programs read lines, and a command is pasted as a whole: neither is broken.
func (s *Stream) wrapped(begin int, text string) string {
	columns := s.Columns()
	if columns < leastColumns || begin+Width(text) <= columns || strings.Contains(text, "  ") {
		return text
	}
	head := strings.Repeat("x", begin-1)
	lines := Wrap(head+" "+text, columns-len(wrapIndent))
	lines[0] = strings.TrimPrefix(strings.TrimPrefix(lines[0], head), " ")
	return strings.Join(lines, "\n"+wrapIndent)
}
