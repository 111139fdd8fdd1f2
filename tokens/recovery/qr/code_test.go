package qr

import (
	"image"
	"image/color"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

// picture has four pixels for a module, quiet zone included.
func picture(c *Code) image.Image {
	const scale = 4
	side := (c.Size + 2*QuietZone) * scale
	img := image.NewGray(image.Rect(0, 0, side, side))
	for i := range side * side {
		x, y := i%side, i/side
		if !c.Dark(x/scale-QuietZone, y/scale-QuietZone) {
			img.SetGray(x, y, color.Gray{Y: 255})
		}
	}
	return img
}

// TestEverySizeIsRead has zbar read symbols of every size that is made, at both
// levels, among them the longest.
func TestEverySizeIsRead(t *testing.T) {
	sizes := map[int]bool{}
	for level, lengths := range map[Level][]int{Screen: {1, 18, 53, 78, 106, 134, 154, 192, 230}, Paper: {1, 20, 32, 46, 60, 74, 86, 108, 130}} {
		for _, n := range lengths {
			text := secret.Copy([]byte(strings.Repeat("cbdefghijklnrtuv-", 14)[:n]))
			c, err := New(text, level)
			if err != nil {
				t.Fatalf("%d bytes at level %d: %v", n, level, err)
			}
			sizes[c.Size] = true
			if got := testenv.ScanQR(t, picture(c)); got != string(text.Bytes()) {
				t.Errorf("%d bytes at level %d: read %q", n, level, got)
			}
			c.Wipe()
			text.Wipe()
		}
	}
	if len(sizes) != (maxSize-17)/4 {
		t.Errorf("sizes %v were read, want all up to %d", sizes, maxSize)
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
