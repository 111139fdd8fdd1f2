package askpass

import (
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
)

// prompt is one question on the console.
type prompt struct {
	text      string   // with the tries left, without colon
	notices   []string // lines to print above when its turn comes
	echo      Echo
	first     bool // it goes before questions that are not
	dropEnter bool // a key revealed it: a line end that comes first is that key
	skippable bool // see Options.Skippable
	onKey     func()
	keep      bool // the terminal is not given back before Console.release
	keeps     bool // that is so now
	editor    *editor
	withdrawn error             // set: to be finished with this error
	revealed  *gate             // closed: it waits for the first key
	result    chan promptResult // buffered: the console never waits for the asker
}

type promptResult struct {
	secret secret.Secret
	err    error
}

func newPrompt(echo Echo, revealed *gate) *prompt {
	return &prompt{echo: echo, revealed: revealed, result: make(chan promptResult, 1)}
}

// suspend takes the keyboard away, to be given back later. Nothing was typed.
func (p *prompt) suspend() {
	p.editor.wipe()
	p.editor, p.notices, p.dropEnter = nil, nil, false
}

// question is the text as one line, ready for the answer.
func (p *prompt) question() string { return cli.Escape(p.text) + ": " }

// emptyRow is the last row of a question that fills the ones before.
const emptyRow = "> "

// answerRoom is the least number of columns for an answer beside its question.
const answerRoom = 12

// divide cuts a question into rows of at most columns, so that the last one
// leaves room for an answer.
func divide(text string, columns int) []string {
	var rows []string
	for cli.Width(text)+answerRoom > columns && cli.Width(text) > columns/2 {
		row, rest := breakRow(text, columns)
		rows = append(rows, row)
		text = rest
		if text == "" {
			text = emptyRow
		}
	}
	return append(rows, text)
}

// breakRow cuts a row off text, at a blank if there is one in its second half.
func breakRow(text string, columns int) (row, rest string) {
	used, blank := 0, 0
	for i, r := range text {
		if used += cli.RuneWidth(r); used > columns {
			if blank > i/2 {
				i = blank
			}
			return strings.TrimRight(text[:i], " "), strings.TrimLeft(text[i:], " ")
		}
		if r == ' ' {
			blank = i
		}
	}
	return strings.TrimRight(text, " "), ""
}
