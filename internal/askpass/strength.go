package askpass

import (
	"bytes"
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"

	"luksmith/luks2/secret"
)

// Bits from which nothing is said: five random words; for a PIN six digits,
// because the device counts wrong ones.
const (
	enoughForPassphrase = 50
	enoughForPIN        = 19
)

// strengthHint judges a new passphrase or PIN in one line; "" when it is good
// enough to say nothing. It never refuses.
func strengthHint(s secret.Secret, pin bool) string {
	var bits float64
	secret.Do(func() { bits = strength(s.Bytes()) })
	switch {
	case s.Len() == 0:
		return "That is empty: it protects nothing."
	case pin && bits < enoughForPIN:
		return fmt.Sprintf("This PIN may be weak (about %.0f bits). Better: six digits without a pattern, or letters too.", bits)
	case !pin && bits < enoughForPassphrase:
		return fmt.Sprintf("This passphrase may be weak (about %.0f bits). Better: five random words or twelve random characters.", bits)
	}
	return ""
}

// strength estimates the logarithm of the number of guesses that a text
// withstands. It is our own, because the libraries for it want strings and leave
// copies of the passphrase all over the heap. Counted are the alphabet and the
// length; nothing is counted for runs ("aaa"), sequences ("abc", "321"), keyboard
// rows ("qwertz"), repeated halves and the dividers between words. A word counts
// as one of a list of 7776, because no dictionary is at hand to tell it from
// random letters.
func strength(text []byte) float64 {
	if half := len(text) / 2; half > 1 && len(text)%2 == 0 && bytes.Equal(text[:half], text[half:]) {
		return strength(text[:half]) + 1
	}
	perCharacter := math.Log2(alphabet(text))
	var bits, letters float64
	before, earlier := rune(-1), rune(-1)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		i += size
		chosen := !follows(earlier, before, r)
		earlier, before = before, r
		switch {
		case unicode.IsLetter(r) && chosen:
			letters++
		case unicode.IsLetter(r):
		default:
			bits += wordStrength(letters, perCharacter)
			letters = 0
			if chosen && !unicode.IsSpace(r) && r != '-' {
				bits += perCharacter
			}
		}
	}
	return bits + wordStrength(letters, perCharacter)
}

// wordStrength is that of a run of letters: at most log2 of the size of the usual
// word list for each 12 of them.
func wordStrength(letters, perCharacter float64) float64 {
	const perWord = 12.9
	return min(letters*perCharacter, perWord*math.Ceil(letters/12))
}

// alphabet is how many characters somebody tries who knows which kinds are used.
func alphabet(text []byte) float64 {
	var lower, upper, digit, other, wide float64
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		i += size
		switch {
		case r >= utf8.RuneSelf:
			wide = 100
		case unicode.IsLower(r):
			lower = 26
		case unicode.IsUpper(r):
			upper = 26
		case unicode.IsDigit(r):
			digit = 10
		case r != ' ':
			other = 32
		}
	}
	return max(lower+upper+digit+other+wide, 1)
}

// follows reports whether c continues what a and b began: aaa, abc, cba, qwe.
func follows(a, b, c rune) bool {
	if a < 0 || b < 0 {
		return false
	}
	if step := b - a; step == c-b && step >= -1 && step <= 1 {
		return true
	}
	keyboardRows := [...]string{"qwertyuiop", "qwertzuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "azertyuiop"}
	for _, row := range keyboardRows {
		for i := 0; i+2 < len(row); i++ {
			if rune(row[i]) == unicode.ToLower(a) && rune(row[i+1]) == unicode.ToLower(b) && rune(row[i+2]) == unicode.ToLower(c) {
				return true
			}
		}
	}
	return false
}
