package sheet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

// sample is an ordinary sheet.
func sample(t testing.TB) *Sheet {
	key := recovery.Generate()
	t.Cleanup(key.Wipe)
	return &Sheet{Key: key, UUID: "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11", Label: "root", Device: "/dev/nvme0n1p3", Host: "ada.example.org",
		Keyslot: 2, Name: "safe at home", Created: time.Date(2026, 11, 23, 11, 4, 5, 0, time.FixedZone("", 3600))}
}

// worst is a sheet with everything too long, on the shorter paper.
func worst(t testing.TB) *Sheet {
	s := sample(t)
	long := strings.Repeat("Wide Words ", 500)
	s.UUID, s.Label, s.Host, s.Name, s.Keyslot, s.Paper = long, long, long, long, 31, Letter
	s.Device, s.Header = "/"+strings.Repeat("W", 63), "/"+strings.Repeat("M", 63)
	return s
}

// write makes a file of the sheet and returns its path.
func write(t *testing.T, s *Sheet, f Format) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), map[Format]string{PDF: "sheet.pdf", PNG: "sheet.png"}[f])
	file, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Write(s); err != nil {
		t.Fatal(err)
	}
	return path
}

// scan has zbarimg read the one QR code of an image file.
func scan(t *testing.T, path string) string {
	t.Helper()
	testenv.Need(t, "zbarimg")
	out, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", path).Output()
	if err != nil {
		t.Fatalf("zbarimg reads nothing in %s: %v", path, err)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestScansAndReads(t *testing.T) {
	testenv.Need(t, "pdftoppm", "pdftotext", "pdfinfo")
	for name, paper := range map[string]Paper{"A4": A4, "letter": Letter} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sample(t)
			s.Paper = paper
			want := string(s.Key.Bytes())
			if got := scan(t, write(t, s, PNG)); got != want {
				t.Errorf("PNG: read %q, want %q", got, want)
			}
			pdf := write(t, s, PDF)
			page := filepath.Join(t.TempDir(), "page")
			testenv.Run(t, "pdftoppm", "-r", "150", "-png", "-singlefile", pdf, page)
			if got := scan(t, page+".png"); got != want {
				t.Errorf("PDF: read %q, want %q", got, want)
			}
			checkPage(t, s, testenv.Run(t, "pdftotext", "-raw", pdf, "-"))
			if info := testenv.Run(t, "pdfinfo", pdf); !strings.Contains(info, "("+name+")") || !strings.Contains(info, "Pages:           1\n") {
				t.Errorf("not one page of %s:\n%s", name, info)
			}
		})
	}
}

// checkPage looks for the groups, in order, and for what else the page must say.
func checkPage(t *testing.T, s *Sheet, text string) {
	t.Helper()
	rest := text
	for n := 1; n <= recovery.Groups; n++ {
		_, after, found := strings.Cut(rest, string(recovery.Group(s.Key, n)))
		if !found {
			t.Fatalf("group %d cannot be copied from the PDF:\n%s", n, text)
		}
		rest = after
	}
	for _, want := range []string{s.UUID, s.Label, s.Device, s.Host, s.Name, "2026-11-23 10:04 UTC",
		"cryptsetup open /dev/disk/by-uuid/" + s.UUID + " recovered\n", "mount /dev/mapper/recovered /mnt\n", "--wipe-slot=2"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
}

func TestFilesDependOnTheFieldsOnly(t *testing.T) {
	s := sample(t)
	for _, f := range []Format{PDF, PNG} {
		var a, b bytes.Buffer
		if err := errors.Join(s.Write(&a, f), s.Write(&b, f)); err != nil {
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
		if err := bad.Write(&b, PDF); err == nil || b.Len() > 0 {
			t.Errorf("key %q: %v, %d bytes written", text, err, b.Len())
		}
		bad.Key.Wipe()
	}
}

// TestNothingOfTheKeyStaysInMemory looks for the key as text, in the UTF-16 of the
// PDF, and for the hexadecimal digits of the QR code. Pixels in the compressor's
// buffers are beyond it.
func TestNothingOfTheKeyStaysInMemory(t *testing.T) {
	s := sample(t)
	var wide []byte
	for _, c := range recovery.Group(s.Key, 5) {
		wide = append(wide, 0, c)
	}
	text, utf16 := testenv.Inverted(s.Key.Bytes()[9:35]), testenv.Inverted(wide)
	secret.Wipe(wide)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, f := range []Format{PDF, PNG} {
		if err := s.Write(null, f); err != nil {
			t.Fatal(err)
		}
	}
	if n := testenv.Copies(t, text); n != 1 {
		t.Errorf("%d copies while the key is alive, want only the key", n)
	}
	s.Key.Wipe()
	if n, m := testenv.Copies(t, text), testenv.Copies(t, utf16); n+m != 0 {
		t.Errorf("%d copies of the text and %d in UTF-16 are left", n, m)
	}
}

func TestPNGTellsItsSize(t *testing.T) {
	b, err := os.ReadFile(write(t, sample(t), PNG))
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
	write(t, sample(t), PDF)
	for f := range faces {
		if !bytes.Equal(before[f], f.ttf()) {
			t.Errorf("font %d was changed", f)
		}
	}
}
