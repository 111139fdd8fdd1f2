package crypttab

import (
	"errors"
	"testing"
	"time"
)

func TestIntegersAsSystemdReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"3": 3, "0x10": 16, "0X1f": 31, "010": 8, "0b101": 5, "0B1": 1, "0o17": 15,
		" 3": 3, "\t3": 3, "+3": 3, "0": 0, "-0": 0, "4294967295": 4294967295, "0b 1": 1} {
		if got, err := ParseUint(text, 32); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]error{"": ErrBadValue, "x": ErrBadValue, "3 ": ErrBadValue, "4k": ErrBadValue, "0x": ErrBadValue,
		"08": ErrBadValue, "1_000": ErrBadValue, "++3": ErrBadValue, "0b2": ErrBadValue, "0b": ErrBadValue, "3.0": ErrBadValue,
		"-1": ErrRange, "4294967296": ErrRange, "99999999999999999999999": ErrRange, "0b-1": ErrRange} {
		if _, err := ParseUint(text, 32); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
	for text, want := range map[string]int32{"-5": -5, "2147483647": 1<<31 - 1, "-2147483648": -1 << 31, "0x20": 32} {
		if got, err := ParseInt(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"2147483648", "-2147483649", "99999999999"} {
		if _, err := ParseInt(text); !errors.Is(err, ErrRange) {
			t.Errorf("%q: %v, want ErrRange", text, err)
		}
	}
}

func TestTimeSpansAsSystemdReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "1min 30s": 90 * time.Second, "1min30s": 90 * time.Second, "1.5h": 90 * time.Minute, "2h 3": 2*time.Hour + 3*time.Second,
		"100ms": 100 * time.Millisecond, "5us": 5 * time.Microsecond, "5µs": 5 * time.Microsecond, "5μs": 5 * time.Microsecond, "1d2h": 26 * time.Hour,
		"1m": time.Minute, "1M": 2629800 * time.Second, "1w": 168 * time.Hour, "1y": 31557600 * time.Second, " 5 ": 5 * time.Second,
		"5 s 6": 11 * time.Second, "0": 0, ".5s": 500 * time.Millisecond, "12.34 .56": 12*time.Second + 340*time.Millisecond + 560*time.Millisecond,
		"infinity": Forever, " infinity\n": Forever, "2562047h": 2562047 * time.Hour, "300y": Forever, "+5": 5 * time.Second, "3 seconds": 3 * time.Second,
	} {
		if got, err := ParseTimeSpan(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]error{"": ErrBadValue, " ": ErrBadValue, "abc": ErrBadValue, "m": ErrBadValue, "5x": ErrBadValue, "1.": ErrBadValue,
		"3.sec": ErrBadValue, "12.34.56": ErrBadValue, "infinityx": ErrBadValue, "5s,": ErrBadValue, "+.5": ErrBadValue,
		"-1": ErrRange, "-0": ErrRange, "5s -1": ErrRange, "99999999999999999999": ErrRange, "999999999999y": ErrRange} {
		if _, err := ParseTimeSpan(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func TestBooleansAsSystemdReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"1": true, "YES": true, "y": true, "True": true, "t": true, "on": true,
		"0": false, "no": false, "N": false, "false": false, "f": false, "Off": false} {
		if got, err := ParseBool(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "maybe", "2", " yes", "enabled"} {
		if _, err := ParseBool(text); !errors.Is(err, ErrBadValue) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzTimeSpan(f *testing.F) {
	for _, s := range []string{"1min 30s", "infinity", ".5", "-1", "99999999999999999999y", "5µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseTimeSpan(s); err == nil && d < 0 {
			t.Errorf("%q is negative: %v", s, d)
		}
	})
}
