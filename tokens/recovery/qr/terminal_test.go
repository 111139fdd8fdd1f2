package qr

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"luksmith/internal/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

// screen is what tmux, a real terminal, shows after text was written to it.
func screen(t *testing.T, text []byte, columns, rows int) string {
	t.Helper()
	testenv.Need(t, "tmux")
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "text"), filepath.Join(dir, "tmux")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	tmux := func(args ...string) string {
		cmd := exec.Command("tmux", append([]string{"-u", "-S", socket, "-f", "/dev/null"}, args...)...)
		cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", socket, "kill-server").Run() })
	tmux("new-session", "-d", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows),
		fmt.Sprintf("cat %s; tmux -S %s wait-for -S written; sleep 60", file, socket))
	tmux("wait-for", "written")
	return tmux("capture-pane", "-e", "-N", "-p")
}

// theme is the colours of a terminal where nothing else was asked for.
type theme struct{ fg, bg color.Gray }

var themes = map[string]theme{
	"dark":  {color.Gray{0xd0}, color.Gray{0x10}},
	"light": {color.Gray{0x20}, color.Gray{0xf8}},
}

const cellWidth, cellHeight = 8, 16

// raster draws a screen of 8 by 16 pixels a cell. It knows the colour sequences
// and the characters of a QR code; letters become a bar.
func raster(t *testing.T, text string, columns, rows int, th theme) image.Image {
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

func paint(t *testing.T, img draw.Image, x, y int, r rune, now theme) {
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
func sgr(t *testing.T, now, th theme, parameters string) theme {
	t.Helper()
	shades := map[string]color.Gray{darkIndex: {0}, lightIndex: {255}}
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

// scan has zbarimg read the one QR code of an image.
func scan(t *testing.T, img image.Image) string {
	t.Helper()
	testenv.Need(t, "zbarimg")
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

func TestScansFromATerminal(t *testing.T) {
	for _, c := range []struct {
		name          string
		columns, rows int
		utf8          bool
	}{
		{"80x24", 80, 24, true},
		{"just fitting", 41, 22, true},
		{"ASCII", 100, 50, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			key := recovery.Generate()
			code, err := New(key, Screen)
			if err != nil {
				t.Fatal(err)
			}
			defer secret.WipeAll([]secret.Secret{key, code.modules})
			var out bytes.Buffer
			if err := code.WriteTerminal(&out, Terminal{Columns: c.columns, Rows: c.rows, UTF8: c.utf8, Colour: true}); err != nil {
				t.Fatal(err)
			}
			text := screen(t, append([]byte("luksmith: scan this\n"), out.Bytes()...), c.columns, c.rows)
			for name, th := range themes {
				if got := scan(t, raster(t, text, c.columns, c.rows, th)); got != string(key.Bytes()) {
					t.Errorf("%s terminal: read %q, want %q", name, got, key.Bytes())
				}
			}
		})
	}
}

func TestTerminalTextIsPlain(t *testing.T) {
	code, err := New(secret.Copy([]byte("x")), Screen)
	if err != nil {
		t.Fatal(err)
	}
	defer code.Wipe()
	for _, utf8 := range []bool{true, false} {
		term := Terminal{Columns: 80, Rows: 40, UTF8: utf8, Colour: true}
		var out bytes.Buffer
		if err := code.WriteTerminal(&out, term); err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(out.String(), "\n")
		if lines = lines[:len(lines)-1]; len(lines) != code.Lines(term) {
			t.Errorf("%d lines, Lines says %d", len(lines), code.Lines(term))
		}
		for _, line := range lines {
			if !strings.HasSuffix(line, reset+"\n") {
				t.Errorf("line %q does not end with a reset: the colour runs on", line)
			}
		}
		if ascii := strings.ContainsFunc(out.String(), func(r rune) bool { return r >= 0x80 }); ascii == !utf8 {
			t.Errorf("UTF8 %v: other characters than asked for", utf8)
		}
	}
}

func TestTerminalTooSmallOrColourless(t *testing.T) {
	key := recovery.Generate()
	code, err := New(key, Screen)
	if err != nil {
		t.Fatal(err)
	}
	defer secret.WipeAll([]secret.Secret{key, code.modules})
	for _, c := range []struct {
		t    Terminal
		want string
	}{
		{Terminal{40, 24, true, true}, "the QR code needs 41 columns and 22 rows, the terminal has 40 and 24"},
		{Terminal{80, 21, true, true}, "the QR code needs 41 columns and 22 rows, the terminal has 80 and 21"},
		{Terminal{80, 24, false, true}, "the QR code needs 82 columns and 42 rows, the terminal has 80 and 24"},
		{Terminal{0, 0, true, true}, "the QR code needs 41 columns and 22 rows, the terminal has 0 and 0"},
		{Terminal{80, 24, true, false}, "a QR code needs a terminal with colours"},
	} {
		var out bytes.Buffer
		err := code.WriteTerminal(&out, c.t)
		if err == nil || err.Error() != c.want || out.Len() > 0 {
			t.Errorf("%+v: %v and %d bytes, want %s", c.t, err, out.Len(), c.want)
		}
		if fit, ok := errors.AsType[*FitError](err); c.t.Colour && (!ok || fit.Columns != c.t.Columns) {
			t.Errorf("%+v: %v is no FitError", c.t, err)
		}
	}
}
