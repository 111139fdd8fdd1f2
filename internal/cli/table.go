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
// whether or not the stream is a terminal, so that scripts can read them.
func (s *Stream) Table(t *Table) error {
	header := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		header[i] = c.Name
	}
	rows := append([][]string{header}, t.Rows...)
	widths := t.widths(rows)
	var b strings.Builder
	for i, row := range rows {
		s.tableRow(&b, t, i-1, row, widths)
	}
	_, err := io.WriteString(s.raw, b.String())
	return err
}

func (t *Table) widths(rows [][]string) []int {
	widths := make([]int, len(t.Columns))
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], Width(cell(row, i)))
		}
	}
	return widths
}

func cell(row []string, i int) string {
	if i >= len(row) || row[i] == "" {
		return "-"
	}
	return Escape(row[i])
}

func (s *Stream) tableRow(b *strings.Builder, t *Table, number int, row []string, widths []int) {
	for i, c := range t.Columns {
		text := cell(row, i)
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
			b.WriteString(s.Colour.Paint(style, text))
		default:
			b.WriteString(s.Colour.Paint(style, text) + pad)
		}
	}
	b.WriteByte('\n')
}
