package qr

import (
	"errors"
	"fmt"
	"io"

	"luksmith/luks2/secret"
)

// ErrNoColour means that the terminal shows no colours, without which a QR code
// is unreadable on one half of all terminals.
var ErrNoColour = errors.New("a QR code needs a terminal with colours")

// FitError means that the terminal is too small. Half a symbol is worse than
// none.
type FitError struct {
	NeedColumns, NeedRows int // the row of the cursor below the symbol included
	Columns, Rows         int
}

func (e *FitError) Error() string {
	return fmt.Sprintf("the QR code needs %d columns and %d rows, the terminal has %d and %d", e.NeedColumns, e.NeedRows, e.Columns, e.Rows)
}

// Terminal is what a terminal can show.
type Terminal struct {
	Columns, Rows int
	// UTF8 allows half blocks, two modules in one cell. Without it a module takes
	// two cells, coloured spaces.
	UTF8 bool
	// Colour says that escape sequences for the 256 colours work.
	Colour bool
}

// Colours that themes leave alone: the cube of the 256 colours, where 16 is black
// and 231 white. Foreground and background are both set in every cell, so that the
// colours of the terminal do not matter.
const (
	darkIndex, lightIndex = "16", "231"
	reset                 = "\x1b[0m"
)

// Lines is the number of lines that [Code.WriteTerminal] writes.
func (c *Code) Lines(t Terminal) int {
	if t.UTF8 {
		return (c.Size + 2*QuietZone + 1) / 2
	}
	return c.Size + 2*QuietZone
}

// WriteTerminal writes the symbol with its quiet zone as lines of text, in one
// write from locked memory. Errors: [ErrNoColour], *[FitError], those of w.
func (c *Code) WriteTerminal(w io.Writer, t Terminal) error {
	width, draw := 2*(c.Size+2*QuietZone), (*Code).appendSpaces
	if t.UTF8 {
		width, draw = c.Size+2*QuietZone, (*Code).appendHalves
	}
	lines := c.Lines(t)
	switch {
	case !t.Colour:
		return ErrNoColour
	case t.Columns < width || t.Rows < lines+1:
		return &FitError{NeedColumns: width, NeedRows: lines + 1, Columns: t.Columns, Rows: t.Rows}
	}
	// A cell takes up to 25 bytes when both colours change.
	text := secret.New(lines * (width*25 + len(reset) + 1))
	defer text.Wipe()
	out := text.Bytes()[:0]
	for line := range lines {
		out = append(draw(c, out, line), reset+"\n"...)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("writing the QR code: %w", err)
	}
	return nil
}

// colours are the foreground and background set last on a line.
type colours struct{ fg, bg string }

// set appends the escape sequence for other colours than the present ones.
func (now *colours) set(out []byte, fg, bg string) []byte {
	if fg != now.fg {
		out = append(append(append(out, "\x1b[38;5;"...), fg...), 'm')
	}
	if bg != now.bg {
		out = append(append(append(out, "\x1b[48;5;"...), bg...), 'm')
	}
	*now = colours{fg, bg}
	return out
}

func (c *Code) index(x, y int) string {
	if c.Dark(x-QuietZone, y-QuietZone) {
		return darkIndex
	}
	return lightIndex
}

// appendHalves draws two rows of modules in one line.
func (c *Code) appendHalves(out []byte, line int) []byte {
	var now colours
	for x := range c.Size + 2*QuietZone {
		out = now.set(out, c.index(x, 2*line), c.index(x, 2*line+1))
		out = append(out, "▀"...)
	}
	return out
}

// appendSpaces draws one row of modules in one line.
func (c *Code) appendSpaces(out []byte, line int) []byte {
	var now colours
	for x := range c.Size + 2*QuietZone {
		index := c.index(x, line)
		out = append(now.set(out, index, index), "  "...)
	}
	return out
}
