package draw

import (
	"fmt"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
)

// face is one of the typefaces of the page: the Go fonts, which may be embedded
// (BSD licence) and tell l from 1 and O from 0.
type face int

const (
	regular face = iota
	bold
	mono
	monoBold
	faces
)

// ttf returns the font file.
func (f face) ttf() []byte {
	return [faces][]byte{goregular.TTF, gobold.TTF, gomono.TTF, gomonobold.TTF}[f]
}

// fonts are the parsed faces, for measuring.
type fonts [faces]*sfnt.Font

func loadFonts() (*fonts, error) {
	var list fonts
	for f := range faces {
		parsed, err := sfnt.Parse(f.ttf())
		if err != nil {
			return nil, fmt.Errorf("parsing the font: %w", err)
		}
		list[f] = parsed
	}
	return &list, nil
}

// has reports whether a face can show a character.
func (l *fonts) has(f face, r rune) bool {
	var b sfnt.Buffer
	glyph, err := l[f].GlyphIndex(&b, r)
	return err == nil && glyph != 0
}

const mmPerPoint = 25.4 / 72

// style is a face and its size in points.
type style struct {
	face   face
	points float64
}

// width measures a text in mm.
func (l *fonts) width(s style, text string) float64 {
	var b sfnt.Buffer
	f := l[s.face]
	units := f.UnitsPerEm()
	var sum fixed.Int26_6
	for _, r := range text {
		glyph, err := f.GlyphIndex(&b, r)
		if err != nil {
			continue
		}
		if advance, err := f.GlyphAdvance(&b, glyph, fixed.I(int(units)), font.HintingNone); err == nil {
			sum += advance
		}
	}
	return float64(sum) / 64 / float64(units) * s.points * mmPerPoint
}
