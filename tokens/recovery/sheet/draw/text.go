package draw

import (
	"fmt"
	"strings"
	"unicode"
)

// printable makes a text from outside harmless: characters that control something,
// turn the writing direction, or are not in the font are written as \u{202e}.
func (l *fonts) printable(f face, text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) || !l.has(f, r) {
			fmt.Fprintf(&b, "\\u{%x}", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// maxText is more characters than any line of the page holds.
const maxText = 300

// fit makes a text from outside harmless and cuts it to a width in mm.
func (l *fonts) fit(s style, text string, width float64) string {
	// Cut before measuring: a label can be long.
	cut := []rune(l.printable(s.face, text[:min(len(text), 4*maxText)]))
	if l.width(s, string(cut)) <= width && len(text) <= 4*maxText {
		return string(cut)
	}
	cut = cut[:min(len(cut), maxText)]
	for len(cut) > 0 && l.width(s, string(cut)+"…") > width {
		cut = cut[:len(cut)-1]
	}
	return string(cut) + "…"
}

// wrap divides our own text into lines of at most the width in mm, at spaces.
func (l *fonts) wrap(s style, text string, width float64) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		longer := strings.TrimPrefix(line+" "+word, " ")
		if line != "" && l.width(s, longer) > width {
			lines = append(lines, line)
			longer = word
		}
		line = longer
	}
	return append(lines, line)
}
