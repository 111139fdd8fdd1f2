package cli

import (
	"io"
	"strings"
)

// Table is aligned output for people. Cells are escaped; columns are as wide as
// their widest cell on a terminal, whatever the script.
type Table struct {
	Columns []Column
	Rows    [][]string // one cell for each column, "" is shown as "-"
	// Style, if set, chooses how a cell looks. Row -1 is the header.
	Style func(row, column int) Style
}

// Column is one column of a Table.
type Column struct {
	Name  string // upper case
	Right bool   // align right, for numbers
}

// Table prints t. The first columns and the blanks between them stay the same
// whether or not the stream is a terminal, so that scripts can read them. A terminal has
// the text of the last column wrapped.
func (s *Stream) Table(t *Table) error {
	header := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		header[i] = c.Name
	}
	rows := append([][]string{header}, t.Rows...)
	widths := s.widths(t, rows)
	var b strings.Builder
	for i, row := range rows {
		s.tableRow(&b, t, i-1, row, widths)
	}
	_, err := io.WriteString(s.raw, b.String())
	return err
}

func (s *Stream) widths(t *Table, rows [][]string) []int {
	widths := make([]int, len(t.Columns))
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], Width(s.cell(row, i)))
		}
	}
	return widths
}

func (s *Stream) cell(row []string, i int) string {
	if i >= len(row) || row[i] == "" {
		return "-"
	}
	return s.Escape(row[i])
}

// before is where the last column begins.
func before(widths []int) (column int) {
	for _, w := range widths[:len(widths)-1] {
		column += w + 1
	}
	return column
}

// leastCell is how narrow a column may be for its text to be wrapped.
const leastCell = 20

// lastCell is the text of the last column in lines.
func (s *Stream) lastCell(text string, widths []int) []string {
	room := s.Columns() - before(widths)
	if room < leastCell || Width(text) <= room {
		return []string{text}
	}
	return Wrap(text, room)
}

func (s *Stream) tableRow(b *strings.Builder, t *Table, number int, row []string, widths []int) {
	for i, c := range t.Columns {
		text := s.cell(row, i)
		pad := strings.Repeat(" ", widths[i]-Width(text))
		style := Plain
		if t.Style != nil {
			style = t.Style(number, i)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		switch {
		case c.Right:
			b.WriteString(pad + s.Colour.Paint(style, text))
		case i == len(t.Columns)-1:
			for n, line := range s.lastCell(text, widths) {
				if n > 0 {
					b.WriteString("\n" + strings.Repeat(" ", before(widths)))
				}
				b.WriteString(s.Colour.Paint(style, line))
			}
		default:
			b.WriteString(s.Colour.Paint(style, text) + pad)
		}
	}
	b.WriteByte('\n')
}
