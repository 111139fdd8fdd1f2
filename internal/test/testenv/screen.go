package testenv

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Screen is what tmux, a real terminal, shows after text was written to it, with
// its colour sequences.
func Screen(t testing.TB, text []byte, columns, rows int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	// The shell asks for the cursor's position and waits for the first byte of the
	// answer: the terminal gives it after it has shown all that came before.
	script := fmt.Sprintf("cat %s; stty -icanon -echo; printf '\\033[6n'; head -c 1 >/dev/null; tmux wait-for -S written; sleep 60", file)
	m := NewTerminal(t, columns, rows, nil, "sh", "-c", script)
	m.tmux("wait-for", "written")
	return m.tmux("capture-pane", "-e", "-N", "-p")
}

// Theme is the colours of a terminal where nothing else was asked for.
type Theme struct{ fg, bg color.Gray }

// Themes are two terminals of different taste.
var Themes = map[string]Theme{
	"dark":  {color.Gray{0xd0}, color.Gray{0x10}},
	"light": {color.Gray{0x20}, color.Gray{0xf8}},
}

const cellWidth, cellHeight = 8, 16

// Raster draws a screen of 8 by 16 pixels a cell. It knows the colour sequences
// and the characters of a QR code; letters become a bar.
func Raster(t testing.TB, text string, columns, rows int, th Theme) image.Image {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, columns*cellWidth, rows*cellHeight))
	draw.Draw(img, img.Bounds(), image.NewUniform(th.bg), image.Point{}, draw.Src)
	now := th
	for y, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		x := 0
		for line != "" {
			if rest, ok := strings.CutPrefix(line, "\x1b["); ok {
				parameters, after, _ := strings.Cut(rest, "m")
				now, line = sgr(t, now, th, parameters), after
				continue
			}
			r := []rune(line)[0]
			line = line[len(string(r)):]
			paint(t, img, x, y, r, now)
			x++
		}
	}
	return img
}

func paint(t testing.TB, img draw.Image, x, y int, r rune, now Theme) {
	cell := image.Rect(x*cellWidth, y*cellHeight, (x+1)*cellWidth, (y+1)*cellHeight)
	draw.Draw(img, cell, image.NewUniform(now.bg), image.Point{}, draw.Src)
	switch {
	case r == ' ':
		return
	case r == '▀':
		cell.Max.Y = cell.Min.Y + cellHeight/2
	case r < 0x80:
		cell = cell.Inset(3)
	default:
		t.Fatalf("the screen shows %q", r)
	}
	draw.Draw(img, cell, image.NewUniform(now.fg), image.Point{}, draw.Src)
}

// sgr applies one colour sequence.
func sgr(t testing.TB, now, th Theme, parameters string) Theme {
	t.Helper()
	shades := map[string]color.Gray{"16": {0}, "231": {255}} // of the 256 colours
	for p := strings.Split(parameters, ";"); len(p) > 0; {
		switch {
		case p[0] == "" || p[0] == "0":
			now, p = th, p[1:]
		case p[0] == "39":
			now.fg, p = th.fg, p[1:]
		case p[0] == "49":
			now.bg, p = th.bg, p[1:]
		case len(p) > 2 && p[0] == "38" && p[1] == "5":
			now.fg, p = shades[p[2]], p[3:]
		case len(p) > 2 && p[0] == "48" && p[1] == "5":
			now.bg, p = shades[p[2]], p[3:]
		default:
			t.Fatalf("unknown sequence %q", parameters)
		}
	}
	return now
}

// ScanQR has zbarimg read the one QR code of an image.
func ScanQR(t testing.TB, img image.Image) string {
	t.Helper()
	Need(t, "zbarimg")
	path := filepath.Join(t.TempDir(), "screen.png")
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", path).Output()
	if err != nil {
		t.Fatalf("zbarimg reads nothing: %v", err)
	}
	return strings.TrimSuffix(string(out), "\n")
}
