package crypttab

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

// Forever is the time span "infinity", and every span above Go's 292 years.
const Forever time.Duration = math.MaxInt64

const (
	usecPerSecond = 1_000_000
	usecPerMinute = 60 * usecPerSecond
	usecPerHour   = 60 * usecPerMinute
	usecPerDay    = 24 * usecPerHour
	usecPerMonth  = 2_629_800 * usecPerSecond  // systemd: 30.4375 days
	usecPerYear   = 31_557_600 * usecPerSecond // systemd: 365.25 days
	usecInfinity  = math.MaxUint64
	decimalDigits = "0123456789"
)

// timeUnits are tried in this order, as prefixes: "m" must come after "min",
// "months", "msec" and "ms". systemd.time(7).
var timeUnits = []struct {
	suffix string
	usec   uint64
}{
	{"seconds", usecPerSecond}, {"second", usecPerSecond}, {"sec", usecPerSecond}, {"s", usecPerSecond},
	{"minutes", usecPerMinute}, {"minute", usecPerMinute}, {"min", usecPerMinute},
	{"months", usecPerMonth}, {"month", usecPerMonth}, {"M", usecPerMonth},
	{"msec", 1000}, {"ms", 1000}, {"m", usecPerMinute},
	{"hours", usecPerHour}, {"hour", usecPerHour}, {"hr", usecPerHour}, {"h", usecPerHour},
	{"days", usecPerDay}, {"day", usecPerDay}, {"d", usecPerDay},
	{"weeks", 7 * usecPerDay}, {"week", 7 * usecPerDay}, {"w", 7 * usecPerDay},
	{"years", usecPerYear}, {"year", usecPerYear}, {"y", usecPerYear},
	{"usec", 1}, {"us", 1}, {"μs", 1}, {"µs", 1}, // Greek mu and micro sign
}

// ParseTimeSpan reads a time span as systemd's parse_sec does: "90", "1min 30s",
// "1.5h", "infinity". A number without unit means seconds. Unlike
// time.ParseDuration, "m" is minutes and "M" months, and units may repeat.
func ParseTimeSpan(s string) (time.Duration, error) {
	rest := strings.TrimLeft(s, " \t\n\r")
	if after, ok := strings.CutPrefix(rest, "infinity"); ok {
		if strings.Trim(after, " \t\n\r") != "" {
			return 0, badSpan(s)
		}
		return Forever, nil
	}
	if rest == "" {
		return 0, badSpan(s)
	}
	var sum uint64
	for rest != "" {
		usec, after, err := spanTerm(rest)
		switch {
		case errors.Is(err, ErrBadValue):
			return 0, badSpan(s)
		case err != nil:
			return 0, fmt.Errorf("%w: %q", err, s)
		}
		if usec >= usecInfinity-sum {
			return 0, fmt.Errorf("%w: %q", ErrRange, s)
		}
		sum += usec
		rest = strings.TrimLeft(after, " \t\n\r")
	}
	if sum > math.MaxInt64/1000 {
		return Forever, nil
	}
	return time.Duration(sum) * time.Microsecond, nil
}

func badSpan(s string) error {
	return fmt.Errorf(`%w %q: want a time span such as 90, 1min 30s or infinity`, ErrBadValue, s)
}

// spanTerm reads one number with its unit, in microseconds.
func spanTerm(s string) (usec uint64, rest string, err error) {
	if s[0] == '-' {
		return 0, "", ErrRange // also "-0"
	}
	whole, rest, err := spanNumber(s)
	if err != nil {
		return 0, "", err
	}
	fraction, dotted := "", strings.HasPrefix(rest, ".")
	if dotted {
		rest = rest[1:]
		end := len(rest) - len(strings.TrimLeft(rest, decimalDigits))
		fraction, rest = rest[:end], rest[end:]
	}
	unit, after := spanUnit(strings.TrimLeft(rest, " \t\n\r"))
	if unit == 0 {
		unit, after = usecPerSecond, strings.TrimLeft(rest, " \t\n\r")
		if after == rest && rest != "" {
			return 0, "", ErrBadValue // "12.34.56", "5x"; but "12.34 .56" is fine
		}
	}
	hi, product := bits.Mul64(whole, unit)
	if hi != 0 || whole >= usecInfinity/unit {
		return 0, "", ErrRange
	}
	if dotted && fraction == "" {
		return 0, "", ErrBadValue // "1.", "3.sec"
	}
	digit := unit / 10
	for _, c := range []byte(fraction) {
		product += uint64(c-'0') * digit // cannot overflow: below one unit
		digit /= 10
	}
	return product, after, nil
}

// spanNumber reads the part before the dot, which may be missing, as strtoll does.
func spanNumber(s string) (n uint64, rest string, err error) {
	digits := strings.TrimPrefix(s, "+")
	end := len(digits) - len(strings.TrimLeft(digits, decimalDigits))
	if end == 0 {
		if strings.HasPrefix(s, ".") {
			return 0, s, nil
		}
		return 0, "", ErrBadValue
	}
	for _, c := range []byte(digits[:end]) {
		hi, m := bits.Mul64(n, 10)
		if n = m + uint64(c-'0'); hi != 0 || n > math.MaxInt64 {
			return 0, "", ErrRange
		}
	}
	return n, digits[end:], nil
}

// spanUnit returns the unit that s starts with, 0 for none.
func spanUnit(s string) (usec uint64, rest string) {
	for _, u := range timeUnits {
		if after, ok := strings.CutPrefix(s, u.suffix); ok {
			return u.usec, after
		}
	}
	return 0, s
}
