package cli

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Wrap breaks escaped text at blanks into lines of at most so many columns. A word that
// is longer has a line of its own.
func Wrap(text string, columns int) []string { return wrapWords(strings.Fields(text), columns) }

func wrapWords(words []string, columns int) []string {
	var lines []string
	line := ""
	for _, word := range words {
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

// wrapped is [WrapMessage] for the terminal behind a stream. Other programs read lines,
// which are not broken.
func (s *Stream) wrapped(begin int, text string) string { return WrapMessage(begin, text, s.Columns()) }

// WrapMessage breaks an escaped message, which begins behind so many columns of other
// text, into lines of a terminal. A command is pasted as a whole, so it is not broken: one
// that is too long for the line has one of its own. Blanks at the beginning stand before
// every line. Text with columns, which has two blanks between them, is broken in the
// second of two; one with more has lines of its own.
func WrapMessage(begin int, text string, columns int) string {
	body := strings.TrimLeft(text, " ")
	indent := text[:len(text)-len(body)]
	if columns < leastColumns || begin+Width(text) <= columns {
		return text
	}
	if label, rest, ok := strings.Cut(body, "  "); ok {
		rest = strings.TrimLeft(rest, " ")
		return text[:len(text)-len(rest)] + wrapColumn(rest, Width(indent+label)+len(body)-len(label)-len(rest), columns)
	}
	words := pastedWords(body)
	if begin > 0 {
		words = append([]string{strings.Repeat("x", begin-1)}, words...)
	}
	lines := wrapWords(words, columns-len(indent)-len(wrapIndent))
	if begin > 0 {
		lines[0] = strings.TrimLeft(strings.TrimPrefix(lines[0], words[0]), " ")
	}
	return indent + strings.Join(lines, "\n"+indent+wrapIndent)
}

// wrapColumn breaks text that stands in the last column.
func wrapColumn(text string, column, columns int) string {
	if columns-column < leastCell || strings.Contains(text, "  ") {
		return text
	}
	return strings.Join(wrapWords(pastedWords(text), columns-column), "\n"+strings.Repeat(" ", column))
}

// commandWords begin commands that messages name.
var commandWords = [...]string{"cryptenroll ", "cryptsetup", "systemd-", "modprobe ", "tpm2_", "sudo "}

// pastedWords are the words of a text. A command is one of them: from a colon, or the
// beginning, to the end, or between back quotes.
func pastedWords(text string) []string {
	var words []string
	for rest := text; ; {
		before, quoted, ok := strings.Cut(rest, "`")
		command, after, closed := strings.Cut(quoted, "`")
		if !ok || !closed {
			return append(words, untilCommand(rest)...)
		}
		open := before[strings.LastIndexByte(before, ' ')+1:] // a parenthesis
		behind, next, _ := strings.Cut(after, " ")            // a comma or colon
		words = append(append(words, strings.Fields(strings.TrimSuffix(before, open))...), open+"`"+command+"`"+behind)
		rest = next
	}
}

func untilCommand(text string) []string {
	for _, c := range commandWords {
		if strings.HasPrefix(text, c) {
			return []string{text}
		}
		if i := strings.Index(text, ": "+c); i >= 0 {
			return append(strings.Fields(text[:i+1]), text[i+2:])
		}
	}
	return strings.Fields(text)
}
