package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	table := &Table{
		Columns: []Column{{Name: "SLOT", Right: true}, {Name: "TYPE"}, {Name: "LABEL"}, {Name: "STATE"}},
		Rows: [][]string{
			{"0", "password", "日本語", "usable"},
			{"10", "fido2", "e\u0301\x1b[31m", ""},
			{"2", "tpm2"},
		},
	}
	if err := StreamTo(&b).Table(table); err != nil {
		t.Fatal(err)
	}
	want := "SLOT TYPE     LABEL     STATE\n" +
		"   0 password 日本語    usable\n" +
		"  10 fido2    e\u0301\\x1b[31m -\n" +
		"   2 tpm2     -         -\n"
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	s := StreamTo(&b)
	s.Colour = true
	table.Rows = table.Rows[:1]
	table.Style = func(row, column int) Style {
		if row == 0 && column == 1 {
			return Green
		}
		return Plain
	}
	_ = s.Table(table)
	if want := "\n   0 \x1b[32mpassword\x1b[0m 日本語 usable\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("%q", b.String())
	}
}

func TestWidthAndClip(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "é": 1, "e\u0301": 1, "日本": 4, "🔐 x": 4, "ﾊ": 1} {
		if got := Width(text); got != want {
			t.Errorf("Width(%q) = %d, want %d", text, got, want)
		}
	}
	for _, c := range []struct {
		in      string
		columns int
		want    string
	}{{"abcdef", 6, "abcdef"}, {"abcdefg", 6, "abc..."}, {"日本語日本語", 8, "日本..."}, {"abcd", 2, ".."}, {"abcd", 0, ""}, {"abcd", -1, ""}} {
		if got := Clip(c.in, c.columns); got != c.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", c.in, c.columns, got, c.want)
		}
	}
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

func TestColourAndEmoji(t *testing.T) {
	for _, c := range []struct {
		env           []string
		colour, emoji bool
	}{
		{[]string{"TERM=xterm", "LANG=C.UTF-8"}, true, true},
		{[]string{"TERM=xterm"}, true, true},
		{[]string{"TERM=xterm", "LANG=de_DE.ISO-8859-1"}, true, false},
		{[]string{"TERM=xterm", "LANG=C.UTF-8", "LC_ALL=C"}, true, false},
		{[]string{"TERM=xterm", "LANG=de_DE.utf8"}, true, true},
		{[]string{"TERM=xterm", "SYSTEMD_UTF8=0"}, true, false},
		{[]string{"TERM=linux"}, true, false},
		{[]string{"TERM=linux", "SYSTEMD_EMOJI=1"}, true, true},
		{[]string{"TERM=xterm", "SYSTEMD_EMOJI=0"}, true, false},
		{[]string{"TERM=dumb"}, false, false},
		{nil, false, false},
		{[]string{"TERM=xterm", "NO_COLOR=1"}, false, true},
		{[]string{"TERM=xterm", "NO_COLOR="}, true, true},
		{[]string{"TERM=xterm", "NO_COLOR=1", "SYSTEMD_COLORS=1"}, true, true},
		{[]string{"TERM=xterm", "SYSTEMD_COLORS=No"}, false, true},
		{[]string{"TERM=xterm", "SYSTEMD_COLORS=256"}, true, true},
		{[]string{"TERM=xterm", "NO_COLOR=1", "SYSTEMD_COLORS=what"}, false, true},
	} {
		if got := colourWanted(environment(c.env...)); got != c.colour {
			t.Errorf("%v: colour %v", c.env, got)
		}
		if got := emojiWanted(environment(c.env...)); got != c.emoji {
			t.Errorf("%v: emoji %v", c.env, got)
		}
	}
}

func TestNoColourInAFile(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("SYSTEMD_COLORS", "1")
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s := NewStream(f); s.Terminal || bool(s.Colour) {
		t.Error("a file is taken for a terminal")
	}
}

func TestStreamKinds(t *testing.T) {
	var first, second bytes.Buffer
	s := StreamTo(&first)
	s.Linef("slot %d\x1b%s", 3, "\n")
	_, _ = s.Write([]byte("two\nlines\x1b\n"))
	_, _ = s.Raw().Write([]byte("\x1b"))
	s.Via(&second)
	s.Linef("there")
	if first.String() != "slot 3\\x1b\\n\ntwo\nlines\\x1b\n\x1b" || second.String() != "there\n" {
		t.Errorf("%q, %q", first.String(), second.String())
	}
}
