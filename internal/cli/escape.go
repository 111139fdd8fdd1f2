package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable reports whether a character may reach a terminal as it is. Not
// printable are C0 and C1 controls, DEL, bidirectional controls, zero-width and
// other invisible characters, line and paragraph separators, private use and
// unassigned code points.
func Printable(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f
	}
	return (unicode.IsPrint(r) || unicode.Is(unicode.Zs, r)) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// Escape makes text from a header, a device or a file harmless for a terminal:
// every character that is not [Printable] becomes \n, \t, \xNN, \uNNNN or
// \UNNNNNNNN, and a byte that is not UTF-8 becomes \xNN. A backslash stays as it
// is: the result is for reading, not for decoding.
func Escape(text string) string {
	clean := true
	for _, r := range text { // invalid bytes come as RuneError, which is printable but looked at below
		if !Printable(r) || r == utf8.RuneError {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		writeEscaped(&b, r, text[:n])
		text = text[n:]
	}
	return b.String()
}

// ASCII makes escaped text fit a terminal with another character set than UTF-8: what it
// may not have becomes "?", an ellipsis three dots.
func ASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, strings.ReplaceAll(text, "…", "..."))
}

// writeEscaped appends one character, given with its bytes.
func writeEscaped(b *strings.Builder, r rune, raw string) {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		fmt.Fprintf(b, `\x%02x`, raw[0])
	case Printable(r):
		b.WriteString(raw)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\t':
		b.WriteString(`\t`)
	case r <= 0xff:
		fmt.Fprintf(b, `\x%02x`, r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}

// escapeWriter passes on what [Escape] makes of the text, but keeps line ends. A
// character may be split between two writes.
type escapeWriter struct {
	w       io.Writer
	escape  func(string) string
	partial []byte // start of an unfinished character, up to 3 bytes
}

func (e *escapeWriter) Write(p []byte) (int, error) {
	text := append(e.partial, p...)
	end := len(text)
	for i := max(0, end-utf8.UTFMax+1); i < end; i++ {
		if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
			end = i
			break
		}
	}
	e.partial = append([]byte(nil), text[end:]...)
	lines := strings.Split(string(text[:end]), "\n")
	for i := range lines {
		lines[i] = e.escape(lines[i])
	}
	if _, err := io.WriteString(e.w, strings.Join(lines, "\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}
