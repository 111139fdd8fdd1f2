package draw

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery/sheet"
)

// bounds is a canvas that complains about what leaves the page or overlaps it.
type bounds struct {
	t             *testing.T
	fonts         *fonts
	width, height float64
	texts         []string
}

func (b *bounds) text(s style, _ uint8, x, y float64, text string) {
	b.texts = append(b.texts, text)
	// Half a millimetre for the dash that hangs out of a panel, and rounding.
	if right := x + b.fonts.width(s, text); x < margin || right > b.width-margin+0.5 || y < topMargin || y > b.height-10 {
		b.t.Errorf("text at %.1f,%.1f to %.1f is outside: %.60q", x, y, right, text)
	}
}

func (b *bounds) group(s style, n int, x, y float64) { b.text(s, black, x, y, groupPlace(n)) }

func (b *bounds) code(x, y, size float64) { b.fill(black, x, y, size, size) }

func (b *bounds) fill(_ uint8, x, y, width, height float64) {
	if x < margin || y < topMargin || x+width > b.width-margin+0.01 || y+height > b.height-footerHeight+0.01 {
		b.t.Errorf("panel at %.1f,%.1f of %.1f by %.1f is outside", x, y, width, height)
	}
}

func drawn(t *testing.T, s *sheet.Sheet) *bounds {
	t.Helper()
	list, err := loadFonts()
	if err != nil {
		t.Fatal(err)
	}
	b := &bounds{t: t, fonts: list}
	p := (*page)(s)
	b.width, b.height = p.size()
	p.draw(b, list)
	return b
}

func TestEverythingStaysOnThePage(t *testing.T) {
	empty := &sheet.Sheet{Key: secret.Secret{}}
	for name, s := range map[string]*sheet.Sheet{"ordinary": sample(t), "worst": worst(t), "empty": empty} {
		for _, paper := range []sheet.Paper{sheet.A4, sheet.Letter} {
			t.Run(fmt.Sprintf("%s on %d", name, paper), func(t *testing.T) {
				on := *s
				on.Paper = paper
				drawn(t, &on)
			})
		}
	}
}

func TestEvilTextsAreHarmless(t *testing.T) {
	s := sample(t)
	evil := "\x1b[2J\x07 \u202egnp.exe\u2066 \xff\x00\n) Tj ET (中文 \U0001f511 end"
	s.UUID, s.Label, s.Device, s.Header, s.Host, s.Name = evil, evil, evil, evil, evil, evil
	b := drawn(t, s)
	for _, text := range b.texts {
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("the page has %q", text)
		}
	}
	all := strings.Join(b.texts, "\n")
	if !strings.Contains(all, `\u{1b}[2J\u{7} \u{202e}gnp.exe`) {
		t.Errorf("the label is not shown escaped:\n%s", all)
	}
	for _, want := range []string{"cryptsetup open --header=HEADER DEVICE recovered", "--wipe-slot=2 --header=HEADER DEVICE"} {
		if !strings.Contains(all, want) {
			t.Errorf("a command does not say %q:\n%s", want, all)
		}
	}
	for _, f := range formats {
		drawTo(t, s, f)
	}
}

func TestPrintableKeepsWhatTheFontHas(t *testing.T) {
	list, err := loadFonts()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"Büro, Łódź, Ελλάδα, Москва": "Büro, Łódź, Ελλάδα, Москва",
		"a\tb":        `a\u{9}b`,
		"\u200bhide":  `\u{200b}hide`,
		"a\xc3(":      `a\u{fffd}(`,
		"日本":          `\u{65e5}\u{672c}`,
		"\U0001f511":  `\u{1f511}`,
		"nbsp\u00a0x": `nbsp\u{a0}x`,
		"":            "",
	} {
		if got := list.printable(mono, in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestFitCuts(t *testing.T) {
	list, err := loadFonts()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Repeat("W", 1<<20), strings.Repeat("\x00", 1<<20), strings.Repeat("é", 5000), "short"} {
		got := list.fit(factStyle, text, 80)
		if w := list.width(factStyle, got); w > 80 || w < 5 || strings.HasSuffix(got, "…") == (text == "short") {
			t.Errorf("%.10q… becomes %q, %.1f mm wide", text, got, w)
		}
	}
}
