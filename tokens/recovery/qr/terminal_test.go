package qr

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

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
			text := testenv.Screen(t, append([]byte("luksmith: scan this\n"), out.Bytes()...), c.columns, c.rows)
			for name, th := range testenv.Themes {
				if got := testenv.ScanQR(t, testenv.Raster(t, text, c.columns, c.rows, th)); got != string(key.Bytes()) {
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
			t.Errorf("%+v: %v is not a FitError", c.t, err)
		}
	}
}
