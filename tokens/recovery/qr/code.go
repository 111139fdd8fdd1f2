// Package qr draws a secret text as a QR code.
//
// github.com/skip2/go-qrcode makes the symbol. It copies the text into buffers on
// the heap, so it runs inside [secret.Do]: in a build with
// GOEXPERIMENT=runtimesecret nothing of them is left afterwards, in a plain build
// they stay until other data takes their place (docs/security.md).
package qr

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/skip2/go-qrcode"

	"luksmith/luks2/secret"
)

// Level is how much of a symbol may be unreadable: ISO/IEC 18004 §7.5.
type Level int

const (
	// Screen restores 7 %, which is enough where nothing gets lost, and gives the
	// smallest symbol.
	Screen = Level(qrcode.Low)
	// Paper restores 25 %: folds, stains, a bad copier.
	Paper = Level(qrcode.High)
)

// QuietZone is the width in modules of the light margin that belongs to a symbol:
// ISO/IEC 18004 §9.1.
const QuietZone = 4

// maxSize is the number of modules of the largest symbol made here, version 9 of
// ISO/IEC 18004 §5.3.1: larger ones fit neither a terminal nor a recovery sheet.
const maxSize = 53

// Code is a QR code. Its modules tell the text, so it is a secret as well: Wipe it.
type Code struct {
	// Size is the number of modules in each direction, without the quiet zone.
	Size    int
	modules secret.Secret // one byte each, row by row, 1 for dark
}

// New encodes a text in the smallest symbol that holds it: up to 230 bytes for the
// screen, 130 for paper. Longer ones are an error. text is borrowed.
func New(text secret.Secret, level Level) (*Code, error) {
	c := &Code{modules: secret.New(maxSize * maxSize)}
	failed := ""
	secret.Do(func() {
		if err := c.encode(text.Bytes(), qrcode.RecoveryLevel(level)); err != nil {
			failed = "the library has no symbol for it" // its error may quote the text
		}
	})
	// What was allocated inside Do is erased when the collector finds it unused; an
	// object that the first run still found in use goes in the second.
	runtime.GC()
	runtime.GC()
	switch {
	case failed != "":
		c.Wipe()
		return nil, fmt.Errorf("encoding %d bytes as a QR code: %s", text.Len(), failed)
	case c.Size > maxSize:
		c.Wipe()
		return nil, fmt.Errorf("a text of %d bytes is too long for the QR code", text.Len())
	}
	return c, nil
}

// encode has the library make the symbol and keeps its modules. The symbol may be
// larger than maxSize; then only Size is set.
func (c *Code) encode(text []byte, level qrcode.RecoveryLevel) error {
	symbol, err := qrcode.New(unsafe.String(unsafe.SliceData(text), len(text)), level)
	if err != nil {
		return err
	}
	symbol.DisableBorder = true
	bitmap := symbol.Bitmap()
	c.Size = len(bitmap)
	if c.Size > maxSize {
		return nil
	}
	modules := c.modules.Bytes()
	for y, row := range bitmap {
		for x, dark := range row {
			if dark {
				modules[y*c.Size+x] = 1
			}
		}
	}
	return nil
}

// Dark reports the colour of a module; those outside the symbol are light.
func (c *Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.Size && y < c.Size && c.modules.Bytes()[y*c.Size+x] == 1
}

// Wipe overwrites the modules.
func (c *Code) Wipe() { c.modules.Wipe() }
