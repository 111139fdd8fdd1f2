package crypttab

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Unescape decodes C escapes in a field, for text that took another way than through
// crypttab, such as a unit's instance name.
func Unescape(field string) string { return unescape(field) }

// Escape writes a text, such as the path of a key file, as one field.
func Escape(text string) string {
	var out strings.Builder
	for i := range len(text) {
		if b := text[i]; b <= ' ' || b == 0x7f || strings.IndexByte(`\"'#`, b) >= 0 {
			fmt.Fprintf(&out, `\x%02x`, b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// unescape decodes C escapes as PID 1 does with the arguments in a generated unit
// (systemd src/basic/escape.c, cunescape_one): \a \b \f \n \r \t \v \\ \" \' \s for
// space, \xHH, three octal digits, \uHHHH and \UHHHHHHHH. Anything else, a NUL and
// a backslash at the end stay as they are.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] == '\\' {
			if decoded, n := unescapeOne(s[i+1:]); n > 0 {
				out = append(out, decoded...)
				i += 1 + n
				continue
			}
		}
		out = append(out, s[i])
		i++
	}
	return string(out)
}

// unescapeOne decodes what follows a backslash and returns how many bytes that
// was, 0 when it is not an escape.
func unescapeOne(s string) (decoded string, n int) {
	if s == "" {
		return "", 0
	}
	if i := strings.IndexByte(`abfnrtv\"'s`, s[0]); i >= 0 {
		return "\a\b\f\n\r\t\v\\\"' "[i : i+1], 1
	}
	switch s[0] {
	case 'x':
		if c, ok := digits(s[1:], 2, 16); ok {
			return string([]byte{byte(c)}), 3
		}
	case 'u':
		if c, ok := digits(s[1:], 4, 16); ok {
			return encodeRune(rune(c)), 5
		}
	case 'U':
		if c, ok := digits(s[1:], 8, 16); ok && c <= utf8.MaxRune && utf8.ValidRune(rune(c)) {
			return encodeRune(rune(c)), 9
		}
	case '0', '1', '2', '3', '4', '5', '6', '7':
		if c, ok := digits(s, 3, 8); ok && c <= 255 {
			return string([]byte{byte(c)}), 3
		}
	}
	return "", 0
}

// digits reads a number of exactly n digits that is not 0.
func digits(s string, n, base int) (uint64, bool) {
	if len(s) < n || strings.ContainsAny(s[:n], "+-_") {
		return 0, false
	}
	c, err := strconv.ParseUint(s[:n], base, 32)
	return c, err == nil && c != 0
}

// encodeRune differs from string(r) for the surrogates, which systemd encodes like
// every other number; what uses the text then refuses it as invalid UTF-8.
func encodeRune(r rune) string {
	if 0xd800 <= r && r < 0xe000 {
		return string([]byte{0xe0 | byte(r>>12), 0x80 | byte(r>>6)&0x3f, 0x80 | byte(r)&0x3f})
	}
	return string(r)
}
