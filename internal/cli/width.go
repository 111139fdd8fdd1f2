package cli

import (
	"unicode"

	"golang.org/x/text/width"
)

// Width is the number of terminal columns that escaped text takes: none for
// combining marks, two for wide East Asian characters and emoji.
func Width(text string) int {
	n := 0
	for _, r := range text {
		switch {
		case r < 0x300:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me):
		case isWide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

func isWide(r rune) bool {
	kind := width.LookupRune(r).Kind()
	return kind == width.EastAsianWide || kind == width.EastAsianFullwidth
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
		w := Width(string(r))
		if w > room {
			return text[:i] + "..."
		}
		room -= w
	}
	return text
}
