package chip

import (
	"strings"
	"testing"
)

func TestParsePCRs(t *testing.T) {
	t.Parallel()
	zero := strings.Repeat("00", 32)
	for _, c := range []struct {
		text, set string
		bank      Bank
		values    int
	}{
		{"", "", 0, 0},
		{"7", "7", 0, 0},
		{"7+11", "7+11", 0, 0},
		{"11,7", "7+11", 0, 0},
		{"secure-boot-policy+kernel-boot", "7+11", 0, 0},
		{"7:sha256", "7", BankSHA256, 0},
		{"7:sha1+11", "7+11", BankSHA1, 0},
		{"7:sha256=" + zero + "+11", "7+11", BankSHA256, 1},
		{"7:sha256=0x" + zero + "+system-identity:sha256=" + zero, "7+15", BankSHA256, 2},
		{"7:SHA256", "7", BankSHA256, 0},
		{"0x7+07+0b111", "7", 0, 0},
		{"7+7", "7", 0, 0},
		{"7+secure-boot-policy", "7", 0, 0},
		{" 7", "7", 0, 0},
		{"+7++8,", "7+8", 0, 0},
		{"+", "", 0, 0},
		{"7:", "7", 0, 0},
		{"7:sha256=", "7", BankSHA256, 0},
		{"7:sha256=0X" + zero[:8] + " " + zero[8:], "7", BankSHA256, 1},
		{"0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+19+20+21+22+23", "0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+19+20+21+22+23", 0, 0},
	} {
		s, err := ParsePCRs(c.text)
		if err != nil || s.Set.String() != c.set || s.Bank != c.bank || len(s.Values) != c.values {
			t.Errorf("%q: %v, %s, %d values, %v", c.text, s.Set, s.Bank, len(s.Values), err)
		}
	}
}

func TestParsePCRsRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"24":                       "out of range 0..23",
		"-1":                       "out of range 0..23",
		"4294967303":               "out of range 0..23",
		"7 ":                       "neither the number nor the name",
		"seven":                    "neither the number nor the name",
		"7:md5":                    "not a PCR bank",
		"7:sha1+11:sha256":         "two banks",
		"7:sha256=00":              "has 1 bytes, a sha256 value has 32",
		"7:sha256=zz":              "not hexadecimal",
		"7=00":                     "needs its bank",
		strings.Repeat("7+", 9999): "too many",
	} {
		if _, err := ParsePCRs(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParsePCRs(f *testing.F) {
	f.Add("7:sha256=00+11")
	f.Add("secure-boot-policy")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParsePCRs(text); err == nil && text != "" {
			again, err := ParsePCRs(s.Set.String())
			if err != nil || again.Set != s.Set {
				t.Errorf("%q gives %s, which gives %s, %v", text, s.Set, again.Set, err)
			}
		}
	})
}
