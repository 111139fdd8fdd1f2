package draw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/sheet"
)

var formats = []sheet.Format{sheet.PDF, sheet.PNG}

// sample is an ordinary sheet.
func sample(t testing.TB) *sheet.Sheet {
	key := recovery.Generate()
	t.Cleanup(key.Wipe)
	return &sheet.Sheet{Key: key, UUID: "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11", Label: "root", Device: "/dev/nvme0n1p3", Host: "ada.example.org",
		Keyslot: 2, Name: "safe at home", Created: time.Date(2026, 11, 23, 11, 4, 5, 0, time.FixedZone("", 3600))}
}

// worst is a sheet with everything too long, on the shorter paper.
func worst(t testing.TB) *sheet.Sheet {
	s := sample(t)
	long := strings.Repeat("Wide Words ", 500)
	s.UUID, s.Label, s.Host, s.Name, s.Keyslot, s.Paper = long, long, long, long, 31, sheet.Letter
	s.Device, s.Header = "/"+strings.Repeat("W", 63), "/"+strings.Repeat("M", 63)
	return s
}

// drawTo makes a file of the sheet and returns its path.
func drawTo(t *testing.T, s *sheet.Sheet, f sheet.Format) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sheet")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Page(file, s, f), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesDependOnTheFieldsOnly(t *testing.T) {
	s := sample(t)
	for _, f := range formats {
		var a, b bytes.Buffer
		if err := errors.Join(Page(&a, s, f), Page(&b, s, f)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("format %d: two files of one sheet differ", f)
		}
	}
}

func TestRefusesWhatIsNoKey(t *testing.T) {
	s := sample(t)
	for _, text := range []string{"", "hunter2", strings.ToUpper(string(s.Key.Bytes())), string(s.Key.Bytes()[:62]), string(s.Key.Bytes()) + "\n"} {
		bad := *s
		bad.Key = secret.Copy([]byte(text))
		var b bytes.Buffer
		if err := Page(&b, &bad, sheet.PDF); err == nil || b.Len() > 0 {
			t.Errorf("key %q: %v, %d bytes written", text, err, b.Len())
		}
		bad.Key.Wipe()
	}
}

func TestPNGTellsItsSize(t *testing.T) {
	b, err := os.ReadFile(drawTo(t, sample(t), sheet.PNG))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil || img.Bounds().Dx() != 1654 || img.Bounds().Dy() != 2339 { // A4 at 200 dpi
		t.Errorf("%v, %v", err, img.Bounds())
	}
	at := bytes.Index(b, []byte("pHYs"))
	if at != 37 || binary.BigEndian.Uint32(b[at+4:]) != 7874 || binary.BigEndian.Uint32(b[at+8:]) != 7874 || b[at+12] != 1 {
		t.Errorf("pHYs at %d: %x", at, b[33:54])
	}
}

func TestResolutionChunkComesAfterTheFirst(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789"), 6)
	want := string(in[:firstChunkEnd]) + string(resolutionChunk()) + string(in[firstChunkEnd:])
	for _, step := range []int{1, 7, 33, 34, 60} {
		var out bytes.Buffer
		w := &resolutionWriter{w: &out}
		for rest := in; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			if n, err := w.Write(rest[:min(step, len(rest))]); err != nil || n != min(step, len(rest)) {
				t.Fatalf("steps of %d: %d, %v", step, n, err)
			}
		}
		if out.String() != want {
			t.Errorf("steps of %d: %q", step, out.String())
		}
	}
}

// TestPDFLeavesTheFontsAlone: fpdf wrote its subset into the shared font, which
// then drew other glyphs in the next file.
func TestPDFLeavesTheFontsAlone(t *testing.T) {
	var before [faces][]byte
	for f := range faces {
		before[f] = bytes.Clone(f.ttf())
	}
	drawTo(t, sample(t), sheet.PDF)
	for f := range faces {
		if !bytes.Equal(before[f], f.ttf()) {
			t.Errorf("font %d was changed", f)
		}
	}
}
