package tpm2

import (
	"strings"
	"testing"
)

func TestParsePCRs(t *testing.T) {
	t.Parallel()
	zero := strings.Repeat("00", 32)
	for _, c := range []struct {
		text, set string
		bank      bank
		values    int
	}{
		{"", "", 0, 0},
		{"7", "7", 0, 0},
		{"7+11", "7+11", 0, 0},
		{"11,7", "7+11", 0, 0},
		{"secure-boot-policy+kernel-boot", "7+11", 0, 0},
		{"7:sha256", "7", bankSHA256, 0},
		{"7:sha1+11", "7+11", bankSHA1, 0},
		{"7:sha256=" + zero + "+11", "7+11", bankSHA256, 1},
		{"7:sha256=0x" + zero + "+system-identity:sha256=" + zero, "7+15", bankSHA256, 2},
		{"0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+19+20+21+22+23", "0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+19+20+21+22+23", 0, 0},
	} {
		s, err := parsePCRs(c.text)
		if err != nil || s.set.String() != c.set || s.bank != c.bank || len(s.values) != c.values {
			t.Errorf("%q: %v, %s, %d values, %v", c.text, s.set, s.bank, len(s.values), err)
		}
	}
}

func TestParsePCRsRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"24":                       "out of range 0..23",
		"-1":                       "neither the number nor the name",
		"seven":                    "neither the number nor the name",
		"+":                        "names no PCR",
		"7+7":                      "twice",
		"7+secure-boot-policy":     "twice",
		"7:md5":                    "no PCR bank",
		"7:sha1+11:sha256":         "two banks",
		"7:sha256=00":              "has 1 bytes, a sha256 value has 32",
		"7:sha256=zz":              "not hexadecimal",
		"7=00":                     "neither the number nor the name",
		strings.Repeat("7+", 9999): "too many",
	} {
		if _, err := parsePCRs(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
}

func TestPCRsOfSeveralOptionsAddUp(t *testing.T) {
	t.Parallel()
	var s pcrSelection
	set := setPCRs(&s)
	for _, text := range []string{"7", "11:sha256", "4"} {
		if err := set(text); err != nil {
			t.Fatal(err)
		}
	}
	if s.set.String() != "4+7+11" || s.bank != bankSHA256 {
		t.Errorf("%s, %s", s.set, s.bank)
	}
	for _, text := range []string{"7", "0:sha1"} {
		if err := set(text); err == nil {
			t.Errorf("%s is accepted on top of %s of bank %s", text, s.set, s.bank)
		}
	}
	if err := set(""); err != nil || s.set != 0 || s.bank != 0 {
		t.Errorf("an empty value leaves %s: %v", s.set, err)
	}
}

func FuzzParsePCRs(f *testing.F) {
	f.Add("7:sha256=00+11")
	f.Add("secure-boot-policy")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parsePCRs(text); err == nil && text != "" {
			again, err := parsePCRs(s.set.String())
			if err != nil || again.set != s.set {
				t.Errorf("%q gives %s, which gives %s, %v", text, s.set, again.set, err)
			}
		}
	})
}
