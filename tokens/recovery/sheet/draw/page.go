// Package draw draws the page of a recovery sheet, as PDF or PNG: the key in
// numbered groups, a QR code, which volume it opens, and how to use it from a
// rescue system.
//
// The key is drawn from locked memory. The PDF library never gets it: it lays out
// a page with letters that hold its place, and the key replaces them in the
// finished file. The PNG is drawn in locked memory; only the buffers of the
// compressor in image/png, which see the pixels of a few lines at a time, cannot be
// wiped from here and are left to [secret.Do].
//
// Only the program luksmith-sheet imports this package: fonts, image code and the
// PDF library cost every program that carries them memory and time at its start,
// even if it never draws. Package sheet is what commands use.
package draw

import (
	"errors"
	"fmt"
	"io"

	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/sheet"
)

var errKey = errors.New("the sheet's key is not a recovery key")

// page is a sheet with the means to draw it.
type page sheet.Sheet

// Page draws a sheet and writes the file to w. The output depends on the
// arguments only.
func Page(w io.Writer, s *sheet.Sheet, f sheet.Format) error {
	if err := write(w, s, f); err != nil {
		return fmt.Errorf("drawing the page: %w", err)
	}
	return nil
}

func write(w io.Writer, s *sheet.Sheet, f sheet.Format) error {
	key, err := recovery.Parse(s.Key)
	if err != nil {
		return errKey
	}
	defer key.Wipe()
	if !key.Equal(s.Key) {
		return errKey
	}
	p := (*page)(s)
	switch f {
	case sheet.PDF:
		return p.writePDF(w)
	case sheet.PNG:
		return p.writePNG(w)
	}
	return fmt.Errorf("format %d is unknown", f)
}

// size returns width and height in mm.
func (p *page) size() (width, height float64) {
	if p.Paper == sheet.Letter {
		return 215.9, 279.4
	}
	return 210, 297
}
