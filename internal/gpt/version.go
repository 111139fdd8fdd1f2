package gpt

import (
	"cmp"
	"strings"
)

// CompareVersions orders version strings: -1 if a is older than b, 1 if it is newer, 0
// if they are the same. It is the order of the Version Format Specification as systemd
// has it, which decides what boots: a "~" suffix sorts below nothing at all, and what
// begins with a digit above what does not. The specification's text says otherwise of
// these two.
func CompareVersions(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, isSeparator), strings.TrimLeftFunc(b, isSeparator)
		var order int
		if a, b, order = skipMark('~', a, b); order != 0 {
			return order
		}
		if a == "" || b == "" {
			return cmp.Compare(min(len(a), 1), min(len(b), 1))
		}
		for _, mark := range []byte("-^.") {
			if a, b, order = skipMark(mark, a, b); order != 0 {
				return order
			}
		}
		if a, b, order = comparePart(a, b); order != 0 {
			return order
		}
	}
}

// skipMark skips a mark that both begin with. If only one does, that one is older.
func skipMark(mark byte, a, b string) (restA, restB string, order int) {
	inA, inB := strings.HasPrefix(a, string(mark)), strings.HasPrefix(b, string(mark))
	switch {
	case inA && inB:
		return a[1:], b[1:], 0
	case inA:
		return a, b, -1
	case inB:
		return a, b, 1
	}
	return a, b, 0
}

// comparePart compares the digits or the letters that both begin with.
func comparePart(a, b string) (restA, restB string, order int) {
	numA, restA := cut(a, isDigit)
	numB, restB := cut(b, isDigit)
	if numA == "" && numB == "" {
		wordA, restA := cut(a, isLetter)
		wordB, restB := cut(b, isLetter)
		return restA, restB, strings.Compare(wordA, wordB)
	}
	if numA == "" || numB == "" {
		return restA, restB, cmp.Compare(len(numA), len(numB))
	}
	numA, numB = strings.TrimLeft(numA, "0"), strings.TrimLeft(numB, "0")
	if order := cmp.Compare(len(numA), len(numB)); order != 0 {
		return restA, restB, order
	}
	return restA, restB, strings.Compare(numA, numB)
}

// cut divides a string behind the characters of a kind that it begins with.
func cut(s string, kind func(rune) bool) (before, after string) {
	after = strings.TrimLeftFunc(s, kind)
	return s[:len(s)-len(after)], after
}

func isDigit(c rune) bool  { return '0' <= c && c <= '9' }
func isLetter(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isSeparator(c rune) bool {
	return !isDigit(c) && !isLetter(c) && !strings.ContainsRune("-.~^", c)
}
