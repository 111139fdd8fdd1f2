package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"ascii", `plain \x1b text ~`, `plain \x1b text ~`},
		{"empty", "", ""},
		{"escape sequence", "\x1b[31mred", `\x1b[31mred`},
		{"C0", "a\x00b\x07\b\r", `a\x00b\x07\x08\x0d`},
		{"line end and tab", "a\nb\tc", `a\nb\tc`},
		{"DEL", "\x7f", `\x7f`},
		{"C1 as UTF-8", "\u009b31m", `\x9b31m`},
		{"C1 as byte", "\x9b31m", `\x9b31m`},
		{"invalid UTF-8", "a\xffb\xc3", `a\xffb\xc3`},
		{"overlong and surrogate", "\xc0\x80\xed\xa0\x80", `\xc0\x80\xed\xa0\x80`},
		{"bidi overrides", "x\u202ey\u2066z\u200f", `x\u202ey\u2066z\u200f`},
		{"arabic letter mark", "\u061c", `\u061c`},
		{"zero width", "a\u200bb\u200dc\ufeffd\u2060", `a\u200bb\u200dc\ufeffd\u2060`},
		{"soft hyphen", "a\u00adb", `a\xadb`},
		{"separators", "a\u2028b\u2029c", `a\u2028b\u2029c`},
		{"tags", "\U000e0041", `\U000e0041`},
		{"variation selector", "\ufe0f", `\ufe0f`},
		{"hangul filler", "\u3164", `\u3164`},
		{"private use", "\ue000", `\ue000`},
		{"printable stays", "grüße 日本語\u3000🔐 é\u0301 עברית", "grüße 日本語\u3000🔐 é\u0301 עברית"},
		{"replacement character stays", "\ufffd", "\ufffd"},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// harmless is the promise in other words than the code's.
func harmless(text string) bool {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") ||
			unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return false
		}
	}
	return true
}

func FuzzEscape(f *testing.F) {
	for _, seed := range []string{"", "plain", "\x1b[2J", "\u202e\xff", "日本\u0085"} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, split int) {
		got := Escape(string(in))
		if !harmless(got) {
			t.Fatalf("%q leaves %q", in, got)
		}
		if again := Escape(got); again != got {
			t.Fatalf("not stable: %q, then %q", got, again)
		}
		var whole, parts bytes.Buffer
		_, _ = StreamTo(&whole).Write(in)
		s := StreamTo(&parts)
		split = min(max(split, 0), len(in))
		_, _ = s.Write(in[:split])
		_, _ = s.Write(in[split:])
		if whole.String() != parts.String() {
			t.Fatalf("%q in one write %q, split at %d %q", in, whole.String(), split, parts.String())
		}
		if !harmless(strings.ReplaceAll(whole.String(), "\n", "")) {
			t.Fatalf("Write leaves %q", whole.String())
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add("\u202e\x7f\u009b \U000e0041 é")
	f.Fuzz(func(t *testing.T, in string) {
		var b bytes.Buffer
		if err := StreamTo(&b).JSON(JSONShort, map[string]string{"label": in}); err != nil {
			t.Fatal(err)
		}
		if !harmless(strings.TrimSuffix(b.String(), "\n")) {
			t.Fatalf("%q leaves %q", in, b.String())
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back["label"] != strings.ToValidUTF8(in, "\ufffd") && utf8.ValidString(in) {
			t.Fatalf("%q comes back as %q, %v", in, back["label"], err)
		}
	})
}

func TestJSONModes(t *testing.T) {
	doc := map[string]any{"label": "a\u202e<b>&\x1b", "n": 1}
	for mode, want := range map[JSONMode]string{
		JSONShort:  `{"label":"a\u202e<b>&\u001b","n":1}` + "\n",
		JSONPretty: "{\n\t\"label\": \"a\\u202e<b>&\\u001b\",\n\t\"n\": 1\n}\n",
	} {
		var b bytes.Buffer
		if err := StreamTo(&b).JSON(mode, doc); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v", mode, b.String(), err)
		}
	}
	var m JSONMode
	if m.String() != "off" || m.On() || m.Set("short") != nil || !m.On() || m.Set("yes") == nil {
		t.Error("parsing of --json=")
	}
	if err := StreamTo(&bytes.Buffer{}).JSON(JSONShort, func() {}); err == nil {
		t.Error("a value that JSON cannot hold is accepted")
	}
}
