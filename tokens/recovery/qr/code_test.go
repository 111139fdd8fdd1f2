package qr

import (
	"strings"
	"testing"

	"rsc.io/qr/coding"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

// TestModulesMatchTheLibrary compares with the library's own encoder, for every
// symbol size and both ways of dividing the data into blocks.
func TestModulesMatchTheLibrary(t *testing.T) {
	versions := map[coding.Version]bool{}
	for _, level := range []Level{Screen, Level(coding.M), Paper, Level(coding.H)} {
		for n := range 131 {
			text := secret.Copy([]byte(strings.Repeat("cbdefghijklnrtuv-", 8)[:n]))
			c, err := New(text, level)
			if err != nil {
				if level == Screen || n < 90 {
					t.Fatalf("%d bytes at level %d: %v", n, level, err)
				}
				continue
			}
			version := coding.Version((c.Size - 17) / 4)
			versions[version] = true
			plan, err := coding.NewPlan(version, coding.Level(level), mask)
			if err != nil {
				t.Fatal(err)
			}
			want, err := plan.Encode(coding.String(text.Bytes()))
			if err != nil {
				t.Fatalf("%d bytes at level %d: the library says %v", n, level, err)
			}
			for y := range c.Size {
				for x := range c.Size {
					if c.Dark(x, y) != want.Black(x, y) {
						t.Fatalf("%d bytes at level %d: module %d,%d differs", n, level, x, y)
					}
				}
			}
			c.Wipe()
			text.Wipe()
		}
	}
	if len(versions) != maxVersion {
		t.Errorf("versions %v were compared, want all up to %d", versions, maxVersion)
	}
}

func TestNewRefusesLongTexts(t *testing.T) {
	for level, longest := range map[Level]int{Screen: 230, Paper: 130} {
		if _, err := New(secret.New(longest), level); err != nil {
			t.Errorf("%d bytes at level %d: %v", longest, level, err)
		}
		if c, err := New(secret.New(longest+1), level); err == nil {
			t.Errorf("%d bytes at level %d give a symbol of %d modules", longest+1, level, c.Size)
		}
	}
}

func TestSizesForRecoveryKeys(t *testing.T) {
	key := recovery.Generate()
	defer key.Wipe()
	for level, want := range map[Level]int{Screen: 33, Paper: 41} {
		c, err := New(key, level)
		if err != nil || c.Size != want {
			t.Errorf("level %d: %v, %+v, want size %d", level, err, c, want)
		}
		if c.Dark(-1, 0) || c.Dark(0, c.Size) || !c.Dark(0, 0) {
			t.Error("the quiet zone is dark or the corner is light")
		}
		c.Wipe()
	}
}

// penalty is ISO/IEC 18004 §7.8.3: the higher, the harder to read.
func penalty(c *coding.Code) int {
	dark, sum := 0, 0
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				dark++
			}
			if x > 0 && y > 0 && c.Black(x, y) == c.Black(x-1, y) && c.Black(x, y) == c.Black(x, y-1) && c.Black(x, y) == c.Black(x-1, y-1) {
				sum += 3
			}
		}
		sum += linePenalty(c.Size, func(i int) bool { return c.Black(i, y) }) + linePenalty(c.Size, func(i int) bool { return c.Black(y, i) })
	}
	off := dark*20/(c.Size*c.Size) - 10
	return sum + 10*max(off, -off-1)
}

func linePenalty(size int, dark func(int) bool) int {
	sum := 0
	var line strings.Builder
	for i, run := 0, 0; i < size; i++ {
		if i > 0 && dark(i) != dark(i-1) {
			run = 0
		}
		switch run++; {
		case run == 5:
			sum += 3
		case run > 5:
			sum++
		}
		bit := byte('0')
		if dark(i) {
			bit = '1'
		}
		line.WriteByte(bit)
	}
	return sum + 40*(strings.Count(line.String(), "00001011101")+strings.Count(line.String(), "10111010000"))
}

func TestMaskIsTheBest(t *testing.T) {
	mean := map[coding.Mask]int{}
	for _, s := range []struct {
		version coding.Version
		level   coding.Level
	}{{4, coding.L}, {6, coding.Q}} {
		for m := range coding.Mask(8) {
			plan, err := coding.NewPlan(s.version, s.level, m)
			if err != nil {
				t.Fatal(err)
			}
			for range 60 {
				key := recovery.Generate()
				c, err := plan.Encode(coding.String(key.Bytes()))
				key.Wipe()
				if err != nil {
					t.Fatal(err)
				}
				mean[m] += penalty(c)
			}
		}
	}
	for m, sum := range mean {
		if sum < mean[mask] {
			t.Errorf("mask %d has a mean penalty of %d, mask %d of %d", m, sum/120, mask, mean[mask]/120)
		}
	}
}
