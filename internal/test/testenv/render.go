package testenv

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Render is what a terminal of so many columns makes of what our programs write, with
// the lines that scrolled out: colours are dropped, blanks at the ends of lines too.
func Render(out string, columns int) string {
	s := &sheet{lines: [][]rune{nil}, columns: columns}
	for i := 0; i < len(out); {
		i += s.take(out[i:])
	}
	text := make([]string, len(s.lines))
	for i, line := range s.lines {
		text[i] = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", ""), " ")
	}
	return strings.Join(text, "\n")
}

// sheet is the paper of a terminal. A character of two columns has a NUL behind it.
type sheet struct {
	lines    [][]rune
	row, col int
	columns  int
}

// take obeys the first character or sequence and returns its length.
func (s *sheet) take(out string) int {
	if strings.HasPrefix(out, "\x1b[") {
		return s.sequence(out)
	}
	c, size := utf8.DecodeRuneInString(out)
	switch c {
	case '\r':
		s.col = 0
	case '\n':
		s.feed()
	case '\b':
		s.col = max(s.col-1, 0)
	case '\a':
	default:
		s.put(c)
	}
	return size
}

// sequence obeys a control sequence: cursor up, erase, and those of colours, which
// change nothing.
func (s *sheet) sequence(out string) int {
	end := strings.IndexFunc(out[2:], func(r rune) bool { return r >= '@' })
	if end < 0 {
		return len(out)
	}
	switch final := out[2+end]; {
	case final == 'A':
		s.row = max(s.row-1, 0)
	case final == 'J':
		s.lines = s.lines[:s.row+1]
		fallthrough
	case final == 'K':
		s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
	}
	return end + 3
}

func (s *sheet) feed() {
	if s.row++; s.row == len(s.lines) {
		s.lines = append(s.lines, nil)
	}
}

func (s *sheet) put(c rune) {
	cells := []rune{c}
	if k := width.LookupRune(c).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		cells = append(cells, 0)
	}
	if s.col+len(cells) > s.columns { // as tmux and xterm: only when there is more to write
		s.col = 0
		s.feed()
	}
	line := &s.lines[s.row]
	for len(*line) < s.col+len(cells) {
		*line = append(*line, ' ')
	}
	copy((*line)[s.col:], cells)
	s.col += len(cells)
}
