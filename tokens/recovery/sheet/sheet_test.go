package sheet

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

var program = testenv.NewStaticHelper(Program)

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	os.Exit(code)
}

// at starts the helper at a path.
func at(path string) connector {
	return func(ctx context.Context) (helper.Conn, error) {
		p, err := helper.StartPath(ctx, path)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
}

// reserve is Create with the real helper program.
func reserve(t *testing.T, path string) *File {
	t.Helper()
	f, err := create(t.Context(), path, at(program.Path(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Discard)
	return f
}

// sample is an ordinary sheet.
func sample(t testing.TB) *Sheet {
	key := recovery.Generate()
	t.Cleanup(key.Wipe)
	return &Sheet{Key: key, UUID: "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11", Label: "root", Device: "/dev/nvme0n1p3", Host: "ada.example.org",
		Keyslot: 2, Name: "safe at home", Created: time.Date(2026, 11, 23, 11, 4, 5, 0, time.FixedZone("", 3600))}
}

// write makes a file of the sheet and returns its path.
func write(t *testing.T, s *Sheet, f Format) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), map[Format]string{PDF: "sheet.pdf", PNG: "sheet.png"}[f])
	if err := reserve(t, path).Write(t.Context(), s); err != nil {
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
	// In one piece, as it is typed.
	if !strings.Contains(text, "\n"+string(s.Key.Bytes())+"\n") {
		t.Errorf("the key cannot be copied in one piece:\n%s", text)
	}
	for _, want := range []string{s.UUID, s.Label, s.Device, s.Host, s.Name, "2026-11-23 10:04 UTC",
		"cryptsetup open /dev/disk/by-uuid/" + s.UUID + " recovered\n", "mount /dev/mapper/recovered /mnt\n", "--wipe-slot=2"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
}

// TestEvilTextsArriveHarmless sends texts that JSON, PDF and terminals treat
// specially.
func TestEvilTextsArriveHarmless(t *testing.T) {
	testenv.Need(t, "pdftotext")
	s := sample(t)
	evil := "\x1b[2J\u202e) Tj\xff\x00\n\u2028<&> end"
	s.UUID, s.Label, s.Device, s.Header, s.Host, s.Name = "u"+evil, "l"+evil, "d"+evil, "h"+evil, "o"+evil, evil
	text := testenv.Run(t, "pdftotext", "-raw", write(t, s, PDF), "-")
	for _, want := range []string{`u\u{1b}[2J\u{202e}) Tj\u{fffd}\u{0}\u`, `l\u{1b}[2J`, `d\u{1b}[2J`, `h\u{1b}[2J`, `o\u{1b}[2J`, `2, \u{1b}[2J`,
		"cryptsetup open --header=HEADER DEVICE recovered"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	if got := scan(t, write(t, s, PNG)); got != string(s.Key.Bytes()) {
		t.Errorf("read %q", got)
	}
}

// TestLongTextsAreCut: together they are longer than a message may be, and take six
// times their length in JSON.
func TestLongTextsAreCut(t *testing.T) {
	testenv.Need(t, "pdftotext")
	s := sample(t)
	long := strings.Repeat("\x01", helper.MaxJSON)
	s.UUID, s.Label, s.Device, s.Header, s.Host, s.Name = long, long, long, long, long, long
	text := testenv.Run(t, "pdftotext", "-raw", write(t, s, PDF), "-")
	if n := strings.Count(text, `\u{1}\u{1}`); n < 6 || strings.Count(text, "…") != 6 || !strings.Contains(text, "DEVICE") {
		t.Errorf("%d of the escapes:\n%s", n, text)
	}
	if len(s.Label) != len(long) {
		t.Error("the caller's sheet was changed")
	}
}

// TestNothingOfTheKeyStaysInMemory looks in this process, which has the key and the
// finished file, for the key as text and in the UTF-16 of the PDF. luksmith-sheet has
// the same test for the process that draws.
func TestNothingOfTheKeyStaysInMemory(t *testing.T) {
	s := sample(t)
	var wide []byte
	for _, c := range recovery.Group(s.Key, 5) {
		wide = append(wide, 0, c)
	}
	text, utf16 := testenv.Inverted(s.Key.Bytes()[9:35]), testenv.Inverted(wide[1:]) // a search for a zero first is slow
	secret.Wipe(wide)
	for _, f := range []Format{PDF, PNG} {
		write(t, s, f)
	}
	if n := testenv.Copies(t, text); n != 1 {
		t.Errorf("%d copies while the key is alive, want only the key", n)
	}
	s.Key.Wipe()
	if n, m := testenv.Copies(t, text), testenv.Copies(t, utf16); n+m != 0 {
		t.Errorf("%d copies of the text and %d in UTF-16 are left", n, m)
	}
}

// BenchmarkSheet starts the helper, draws a sheet and writes it to the disk.
func BenchmarkSheet(b *testing.B) {
	s, connect := sample(b), at(program.Path(b))
	for _, name := range []string{"sheet.pdf", "sheet.png"} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), name)
			for b.Loop() {
				f, err := create(b.Context(), path, connect)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Write(b.Context(), s); err != nil {
					b.Fatal(err)
				}
				_ = os.Remove(path)
			}
		})
	}
}
