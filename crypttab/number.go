package crypttab

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// spaces are the characters that systemd's parsers skip, C's isspace included.
const spaces = " \t\n\v\f\r"

// ParseBool reads a boolean as systemd's parse_boolean does: 1 0, yes no, y n,
// true false, t f, on off, in any case.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("%w %q: want yes or no", ErrBadValue, s)
}

// ParseUint reads an unsigned integer of at most bits bits as systemd's safe_atou
// does: leading white space and "+" are accepted, the base follows the prefix
// (0x, 0o, 0b, or 0 for octal), a negative number is out of range and not
// malformed, and there are no suffixes such as "4k".
func ParseUint(s string, bits int) (uint64, error) {
	negative, n, err := parseInteger(s)
	if err != nil {
		return 0, err
	}
	if n > math.MaxUint64>>(64-bits) || negative && n != 0 {
		return 0, fmt.Errorf("%w: %q", ErrRange, s)
	}
	return n, nil
}

// ParseInt reads a signed 32-bit integer as systemd's safe_atoi does; the syntax
// is that of [ParseUint].
func ParseInt(s string) (int32, error) {
	negative, n, err := parseInteger(s)
	switch {
	case err != nil:
		return 0, err
	case negative && n <= -math.MinInt32:
		return int32(-int64(n)), nil
	case !negative && n <= math.MaxInt32:
		return int32(n), nil
	}
	return 0, fmt.Errorf("%w: %q", ErrRange, s)
}

// parseInteger splits an integer into sign and magnitude.
func parseInteger(s string) (negative bool, n uint64, err error) {
	base, rest := basePrefix(strings.TrimLeft(s, spaces))
	rest = strings.TrimLeft(rest, spaces) // strtoul skips them once more
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		negative, rest = rest[0] == '-', rest[1:]
	}
	if base == 0 {
		base, rest = strtoulBase(rest)
	}
	if rest == "" || strings.ContainsAny(rest, "_+-") {
		return false, 0, fmt.Errorf("%w %q: want a number", ErrBadValue, s)
	}
	n, err = strconv.ParseUint(rest, base, 64)
	if err == nil {
		return negative, n, nil
	}
	if allDigits(rest, base) {
		return false, 0, fmt.Errorf("%w: %q", ErrRange, s)
	}
	return false, 0, fmt.Errorf("%w %q: want a number", ErrBadValue, s)
}

// basePrefix strips the two prefixes that systemd adds to those of strtoul. They
// stand before a sign, unlike strtoul's.
func basePrefix(s string) (base int, rest string) {
	if len(s) >= 2 && s[0] == '0' {
		switch s[1] {
		case 'b', 'B':
			return 2, s[2:]
		case 'o', 'O':
			return 8, s[2:]
		}
	}
	return 0, s
}

// strtoulBase does what strtoul with base 0 does to the digits behind the sign.
func strtoulBase(s string) (base int, rest string) {
	switch {
	case len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X'):
		return 16, s[2:]
	case len(s) > 1 && s[0] == '0':
		return 8, s[1:]
	}
	return 10, s
}

func allDigits(s string, base int) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		_, err := strconv.ParseUint(string(r), base, 8)
		return err != nil
	})
}
