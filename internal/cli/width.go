package cli

import (
	"unicode"

	"golang.org/x/text/width"
)

// Width is the number of terminal columns that escaped text takes.
func Width(text string) int {
	n := 0
	for _, r := range text {
		n += RuneWidth(r)
	}
	return n
}

// RuneWidth is the number of terminal columns of a [Printable] character: none
// for combining marks, two for wide East Asian characters and emoji.
func RuneWidth(r rune) int {
	if r < 0x300 {
		return 1
	}
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// Clip shortens escaped text to at most columns, marking the cut with "...".
func Clip(text string, columns int) string {
	if Width(text) <= columns {
		return text
	}
	if columns < 3 {
		return "..."[:max(columns, 0)]
	}
	room := columns - 3
	for i, r := range text {
		w := RuneWidth(r)
		if w > room {
			return text[:i] + "..."
		}
		room -= w
	}
	return text
}
