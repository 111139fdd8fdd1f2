// Package qr draws a secret text as a QR code without leaving copies of it in
// memory.
//
// The layout of the symbol comes from rsc.io/qr/coding and the error correction
// from rsc.io/qr/gf256. Their ready-made encoders, and those of other libraries,
// take the text as a string and leave it in buffers on the heap that nobody can
// reach to wipe; so the few steps that touch the text are done here, in locked
// memory.
package qr

import (
	"fmt"

	"rsc.io/qr/coding"
	"rsc.io/qr/gf256"

	"luksmith/luks2/secret"
)

// Level is how much of a symbol may be unreadable: ISO/IEC 18004 §7.5.
type Level int

const (
	// Screen restores 7 %, which is enough where nothing gets lost, and gives the
	// smallest symbol.
	Screen = Level(coding.L)
	// Paper restores 25 %: folds, stains, a bad copier.
	Paper = Level(coding.Q)
)

// QuietZone is the width in modules of the light margin that belongs to a symbol:
// ISO/IEC 18004 §9.1.
const QuietZone = 4

// mask is the pattern laid over the data. Any of the eight may be used, the symbol
// says which; this one has the lowest mean penalty (ISO/IEC 18004 §7.8.3) over
// random recovery keys at both levels, see TestMaskIsTheBest.
const mask = coding.Mask(2)

// maxVersion is the largest symbol made here: up to it, the length of the text
// takes one byte (ISO/IEC 18004 table 3).
const maxVersion = 9

// Code is a QR code. Its modules tell the text, so it is a secret as well: Wipe it.
type Code struct {
	// Size is the number of modules in each direction, without the quiet zone.
	Size    int
	modules secret.Secret // one byte each, row by row, 1 for dark
}

// New encodes a text in the smallest symbol that holds it: up to 230 bytes for the
// screen, 130 for paper. Longer ones are an error. text is borrowed.
func New(text secret.Secret, level Level) (*Code, error) {
	for v := coding.Version(1); v <= maxVersion; v++ {
		if v.DataBytes(coding.Level(level)) < text.Len()+headerBytes {
			continue
		}
		plan, err := coding.NewPlan(v, coding.Level(level), mask)
		if err != nil {
			return nil, fmt.Errorf("laying out a QR code: %w", err)
		}
		return newCode(plan, text), nil
	}
	return nil, fmt.Errorf("a text of %d bytes is too long for the QR code", text.Len())
}

// newCode fills the modules of a plan.
func newCode(plan *coding.Plan, text secret.Secret) *Code {
	words := codewords(plan, text)
	defer words.Wipe()
	size := len(plan.Pixel)
	c := &Code{Size: size, modules: secret.New(size * size)}
	modules, bits := c.modules.Bytes(), words.Bytes()
	for y, row := range plan.Pixel {
		for x, pixel := range row {
			dark := byte(pixel & coding.Black)
			if role := pixel.Role(); role == coding.Data || role == coding.Check {
				o := pixel.Offset()
				dark ^= bits[o/8] >> (7 - o%8) & 1
			}
			modules[y*size+x] = dark
		}
	}
	return c
}

// headerBytes is what mode indicator, length and terminator take beside the text.
const headerBytes = 2

// codewords are the data words, one block after the other, followed by the check
// words of each block: the order that the offsets of a plan refer to.
func codewords(plan *coding.Plan, text secret.Secret) secret.Secret {
	words := secret.New(plan.DataBytes + plan.CheckBytes)
	w := words.Bytes()
	const byteMode = 4 // ISO/IEC 18004 table 2
	n := text.Len()
	w[0], w[1] = byteMode<<4|byte(n>>4), byte(n<<4)
	for i, b := range text.Bytes() {
		w[i+1] |= b >> 4
		w[i+2] = b << 4 // the four zero bits after the last one are the terminator
	}
	for i, pad := n+headerBytes, byte(0xec); i < plan.DataBytes; i, pad = i+1, pad^0xec^0x11 {
		w[i] = pad
	}
	addCheckWords(plan, w)
	return words
}

// addCheckWords computes the check words of the blocks in w. The last blocks are
// one word longer if the data does not divide evenly.
func addCheckWords(plan *coding.Plan, w []byte) {
	perBlock := plan.CheckBytes / plan.Blocks
	encoder := gf256.NewRSEncoder(coding.Field, perBlock)
	data, check := w[:plan.DataBytes], w[plan.DataBytes:]
	longer := plan.DataBytes % plan.Blocks
	// The encoder works in a buffer that it keeps while it is long enough. So it
	// gets the longest block first and last, of zeros: no other buffer is made,
	// and nothing stays in this one.
	blank := func() { encoder.ECC(make([]byte, plan.DataBytes/plan.Blocks+1), make([]byte, perBlock)) }
	blank()
	defer blank()
	for block := range plan.Blocks {
		n := plan.DataBytes / plan.Blocks
		if block >= plan.Blocks-longer {
			n++
		}
		encoder.ECC(data[:n], check[:perBlock])
		data, check = data[n:], check[perBlock:]
	}
}

// Dark reports the colour of a module; those outside the symbol are light.
func (c *Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.Size && y < c.Size && c.modules.Bytes()[y*c.Size+x] == 1
}

// Wipe overwrites the modules.
func (c *Code) Wipe() { c.modules.Wipe() }
