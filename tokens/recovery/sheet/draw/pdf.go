package draw

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"codeberg.org/go-pdf/fpdf"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/qr"
)

// pdfCanvas draws with fpdf, without the key: other letters stand for its groups
// and a row of the letter z for the QR code, of the same lengths. [page.writePDF]
// puts the key in their places once the file is finished. That needs page contents
// that are not compressed.
type pdfCanvas struct {
	pdf  *fpdf.Fpdf
	size int // modules of the QR code in each direction
}

func (c *pdfCanvas) text(s style, shade uint8, x, y float64, text string) {
	c.pdf.SetFont(family(s.face), "", s.points)
	c.pdf.SetTextColor(int(shade), int(shade), int(shade))
	c.pdf.Text(x, y, text)
}

// family is the name under which a face is known to fpdf.
func family(f face) string { return fmt.Sprintf("go%d", f) }

func (c *pdfCanvas) group(s style, n int, x, y float64) {
	c.text(s, black, x, y, groupPlace(n))
}

// groupPlace is the text that holds the place of group n. Each group takes two
// other letters, so that all 16 get into the font that the file carries.
func groupPlace(n int) string {
	return strings.Repeat(recovery.Alphabet[2*n-2:2*n], recovery.GroupLength/2)
}

// code draws a one-bit image inside the page contents, as hexadecimal digits:
// PDF 32000-1:2008 §8.9.7.
func (c *pdfCanvas) code(x, y, size float64) {
	_, height := c.pdf.GetPageSize()
	k := c.pdf.GetConversionRatio()
	c.pdf.RawWriteStr(fmt.Sprintf("q %.4f 0 0 %.4f %.4f %.4f cm\nBI /W %d /H %d /CS /G /BPC 1 /F /AHx ID\n%s>\nEI Q\n",
		size*k, size*k, x*k, (height-y-size)*k, c.size, c.size, codePlace(c.size)))
}

// codePlace is the text that holds the place of the QR code's pixels.
func codePlace(size int) string { return strings.Repeat("z", 2*size*rowBytes(size)) }

// rowBytes is the length of one row of one-bit pixels.
func rowBytes(size int) int { return (size + 7) / 8 }

func (c *pdfCanvas) fill(shade uint8, x, y, width, height float64) {
	c.pdf.SetFillColor(int(shade), int(shade), int(shade))
	c.pdf.Rect(x, y, width, height, "F")
}

// blankPDF draws the page with placeholders.
func (p *page) blankPDF(codeSize int) ([]byte, error) {
	width, height := p.size()
	pdf := fpdf.NewCustom(&fpdf.InitType{UnitStr: "mm", Size: fpdf.SizeType{Wd: width, Ht: height}})
	pdf.SetCompression(false)
	pdf.SetCatalogSort(true) // the same bytes every time
	pdf.SetCreationDate(p.Created.UTC())
	pdf.SetModificationDate(p.Created.UTC())
	pdf.SetTitle(title, false)
	pdf.SetCreator("luksmith", false)
	pdf.SetAutoPageBreak(false, 0)
	for f := range faces {
		pdf.AddUTF8FontFromBytes(family(f), "", bytes.Clone(f.ttf())) // fpdf writes into the font
	}
	list, err := loadFonts()
	if err != nil {
		return nil, err
	}
	pdf.AddPage()
	p.draw(&pdfCanvas{pdf: pdf, size: codeSize}, list)
	var b bytes.Buffer
	err = pdf.Output(&b)
	return b.Bytes(), err
}

func (p *page) writePDF(w io.Writer) error {
	code, err := qr.New(p.Key, qr.Paper)
	if err != nil {
		return err
	}
	defer code.Wipe()
	blank, err := p.blankPDF(code.Size)
	if err != nil {
		return err
	}
	file := secret.Copy(blank)
	defer file.Wipe()
	for n := 1; n <= recovery.Groups; n++ {
		// fpdf writes text in UTF-16, high byte first.
		places, err := find(blank, []byte("\x00"+strings.Join(strings.Split(groupPlace(n), ""), "\x00")), 2)
		if err != nil {
			return err
		}
		for _, at := range places {
			for i, letter := range recovery.Group(p.Key, n) {
				file.Bytes()[at+2*i+1] = letter
			}
		}
	}
	places, err := find(blank, []byte(codePlace(code.Size)), 1)
	if err != nil {
		return err
	}
	fillCode(file.Bytes()[places[0]:], code)
	_, err = w.Write(file.Bytes())
	return err
}

// find returns the places where a placeholder stands, which are to be so many.
func find(b, place []byte, want int) (places []int, err error) {
	if n := bytes.Count(b, place); n != want {
		return nil, fmt.Errorf("a place of the key is there %d times, not %d", n, want)
	}
	for from := 0; len(places) < want; from = places[len(places)-1] + len(place) {
		places = append(places, from+bytes.Index(b[from:], place))
	}
	return places, nil
}

// fillCode writes the rows of a QR code as hexadecimal digits, a set bit for light.
func fillCode(dst []byte, c *qr.Code) {
	row := secret.New(rowBytes(c.Size))
	defer row.Wipe()
	for y := range c.Size {
		clear(row.Bytes())
		for x := range c.Size {
			if !c.Dark(x, y) {
				row.Bytes()[x/8] |= 0x80 >> (x % 8)
			}
		}
		dst = dst[hex.Encode(dst, row.Bytes()):]
	}
}
