package draw

import (
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/qr"
)

// dpi is the resolution of the PNG.
const dpi = 200

const dotsPerMM = dpi / 25.4

// pngCanvas draws into an image whose pixels lie in locked memory.
type pngCanvas struct {
	image *image.Gray
	fonts *fonts
	key   secret.Secret
	qr    *qr.Code
	faces map[style]font.Face
	err   error // the first one
}

func dots(mm float64) fixed.Int26_6 { return fixed.Int26_6(math.Round(mm * dotsPerMM * 64)) }

// drawer returns a pen at a place.
func (c *pngCanvas) drawer(s style, shade uint8, x, y float64) *font.Drawer {
	f, ok := c.faces[s]
	if !ok {
		var err error
		f, err = opentype.NewFace(c.fonts[s.face], &opentype.FaceOptions{Size: s.points, DPI: dpi, Hinting: font.HintingNone})
		if err != nil {
			c.err = err
			return nil
		}
		c.faces[s] = f
	}
	return &font.Drawer{Dst: c.image, Src: image.NewUniform(color.Gray{Y: shade}), Face: f, Dot: fixed.Point26_6{X: dots(x), Y: dots(y)}}
}

func (c *pngCanvas) text(s style, shade uint8, x, y float64, text string) {
	if d := c.drawer(s, shade, x, y); d != nil {
		d.DrawString(text)
	}
}

func (c *pngCanvas) group(s style, n int, x, y float64) {
	if d := c.drawer(s, black, x, y); d != nil {
		d.DrawBytes(recovery.Group(c.key, n))
	}
}

// code draws modules of a whole number of dots, so that all are of one size.
func (c *pngCanvas) code(x, y, size float64) {
	module := int(size * dotsPerMM / float64(c.qr.Size))
	left, top := int(x*dotsPerMM), int(y*dotsPerMM)
	for row := range c.qr.Size {
		for column := range c.qr.Size {
			if c.qr.Dark(column, row) {
				at := image.Pt(left+column*module, top+row*module)
				draw.Draw(c.image, image.Rectangle{at, at.Add(image.Pt(module, module))}, image.Black, image.Point{}, draw.Src)
			}
		}
	}
}

func (c *pngCanvas) fill(shade uint8, x, y, width, height float64) {
	r := image.Rect(dots(x).Round(), dots(y).Round(), dots(x+width).Round(), dots(y+height).Round())
	draw.Draw(c.image, r, image.NewUniform(color.Gray{Y: shade}), image.Point{}, draw.Src)
}

func (p *page) writePNG(w io.Writer) error {
	code, err := qr.New(p.Key, qr.Paper)
	if err != nil {
		return err
	}
	defer code.Wipe()
	list, err := loadFonts()
	if err != nil {
		return err
	}
	width, height := p.size()
	size := image.Pt(dots(width).Round(), dots(height).Round())
	pixels := secret.New(size.X * size.Y)
	defer pixels.Wipe()
	c := &pngCanvas{fonts: list, key: p.Key, qr: code, faces: map[style]font.Face{},
		image: &image.Gray{Pix: pixels.Bytes(), Stride: size.X, Rect: image.Rectangle{Max: size}}}
	c.fill(255, 0, 0, width, height)
	secret.Do(func() {
		if p.draw(c, list); c.err == nil {
			c.err = png.Encode(&resolutionWriter{w: w}, c.image)
		}
	})
	return c.err
}

// resolutionWriter adds the chunk that tells the size on paper, which image/png
// leaves out, after the first one: PNG specification §11.3.4.3.
type resolutionWriter struct {
	w       io.Writer
	written int
}

// firstChunkEnd is where IHDR ends: signature, length, type, 13 bytes, checksum.
const firstChunkEnd = 8 + 4 + 4 + 13 + 4

func (r *resolutionWriter) Write(b []byte) (int, error) {
	head := b[:min(len(b), max(0, firstChunkEnd-r.written))]
	n, err := r.w.Write(head)
	r.written += n
	if err != nil || len(head) == len(b) && r.written != firstChunkEnd {
		return n, err
	}
	if r.written == firstChunkEnd && len(head) > 0 {
		if _, err := r.w.Write(resolutionChunk()); err != nil {
			return n, err
		}
	}
	m, err := r.w.Write(b[len(head):])
	r.written += m
	return n + m, err
}

func resolutionChunk() []byte {
	const inchesPerMetre = 1 / 0.0254
	b := binary.BigEndian.AppendUint32(nil, 9)
	b = append(b, "pHYs"...)
	b = binary.BigEndian.AppendUint32(b, uint32(math.Round(dpi*inchesPerMetre)))
	b = binary.BigEndian.AppendUint32(b, uint32(math.Round(dpi*inchesPerMetre)))
	b = append(b, 1) // dots per metre
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}
