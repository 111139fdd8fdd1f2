// Package sheet prints a recovery key on one page, as PDF or PNG: the key in
// numbered groups, a QR code, which volume it opens, and how to use it from a
// rescue system.
//
// The key is drawn from locked memory. The PDF library never gets it: it lays out
// a page with letters that hold its place, and the key replaces them in the
// finished file. The PNG is drawn in locked memory; only the buffers of the
// compressor in image/png, which see the pixels of a few lines at a time, cannot be
// wiped from here and are left to [secret.Do].
//
// The package is apart from tokens/recovery so that cryptsetup-unit, which prints
// no sheets, does not carry fonts and a PDF library.
package sheet

import (
	"errors"
	"fmt"
	"io"
	"time"

	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
)

// Format is the kind of file.
type Format int

const (
	// PDF is one page of vector graphics; the key can be searched and copied.
	PDF Format = iota
	// PNG is one page of 200 dots per inch in shades of grey.
	PNG
)

// Sheet is what the page says. All texts may come from a header or from anybody:
// what does not belong on paper is shown escaped, what is too long is cut.
type Sheet struct {
	// Key is the recovery key in the form of [recovery.Generate]. Borrowed.
	Key secret.Secret
	// UUID and Label are those of the volume. An empty label is left out.
	UUID, Label string
	// Device is the path that the user gave, of the data device.
	Device string
	// Header is the path of a detached header, else empty.
	Header string
	// Host is the name of the computer; may be empty.
	Host string
	// Keyslot is the number of the slot that the key opens.
	Keyslot int
	// Name is the user's name for the keyslot; may be empty.
	Name string
	// Created is when the key was enrolled. The page says it in UTC.
	Created time.Time
	Paper   Paper
}

var errKey = errors.New("the sheet's key is no recovery key")

// Write draws the page and writes the file to w. The output depends on the fields
// only.
func (s *Sheet) Write(w io.Writer, f Format) error {
	key, err := recovery.Parse(s.Key)
	if err != nil || !key.Equal(s.Key) {
		key.Wipe()
		return errKey
	}
	defer key.Wipe()
	write := s.writePDF
	if f == PNG {
		write = s.writePNG
	}
	if err := write(w); err != nil {
		return fmt.Errorf("making the recovery sheet: %w", err)
	}
	return nil
}
