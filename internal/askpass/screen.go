package askpass

import (
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
)

// screen draws status lines and a prompt at the bottom of a terminal and keeps
// other output above them. It is not safe for concurrent use; Console's lock
// covers it.
type screen struct {
	out    *terminal
	colour cli.Palette
	emoji  bool
	ascii  bool // the locale has another character set than UTF-8
	// dumb terminals get no escape sequences and no redrawing: each line is
	// printed once, and typing shows nothing.
	dumb bool
	rows int // on the terminal now, the cursor at the end of the last; 0 is none
	// drawn is what a dumb terminal shows in its last row.
	drawn string
	room  int // columns for the answer behind the question
	stars int // asterisks there; -1: something else
	// scratch holds the visible part of an answer while it is written.
	scratch secret.Secret
}

// clear removes status lines and prompt. The cursor is then where they began.
func (s *screen) clear() { s.out.write([]byte(s.erase())) }

// erase is what clear writes.
func (s *screen) erase() string {
	rows := s.rows
	s.rows, s.drawn = 0, ""
	switch {
	case rows == 0:
		return ""
	case s.dumb:
		return "\r\n"
	}
	return "\r" + strings.Repeat("\x1b[A", rows-1) + "\x1b[J"
}

// forget makes the next drawing start on a new line: something else was written.
func (s *screen) forget() {
	s.rows, s.drawn = 0, ""
	s.out.write([]byte("\r\n"))
}

// print puts text that ends its lines above status lines and prompt; the caller
// draws them again.
func (s *screen) print(text string) {
	s.out.write([]byte(s.erase() + strings.ReplaceAll(s.spell(text), "\n", "\r\n")))
}

// line prints one message of ours, which may hold text from anywhere.
func (s *screen) line(text string) {
	s.print(cli.WrapMessage(0, cli.Escape(text), s.out.columns()) + "\n")
}

// spell makes text fit the terminal's character set.
func (s *screen) spell(text string) string {
	if !s.ascii {
		return text
	}
	return cli.ASCII(text)
}

// draw shows the status lines and, if p is not nil, the prompt below them.
func (s *screen) draw(status []string, p *prompt) {
	if s.dumb {
		s.drawDumb(p)
		return
	}
	columns := s.out.columns() - 1 // a full row would wrap on some terminals only
	var rows []string
	for _, text := range status {
		rows = append(rows, cli.Clip(s.spell(text), columns))
	}
	var question []string
	if p != nil {
		question = s.layout(p, columns)
	}
	erase := s.erase()
	s.rows = len(rows) + len(question)
	s.out.write([]byte(erase + strings.Join(append(rows, s.paint(question)...), "\r\n")))
	if p != nil {
		s.room = columns - cli.Width(question[len(question)-1])
		s.drawAnswer(p)
	}
}

// layout divides a question into rows; the answer goes behind the last one.
func (s *screen) layout(p *prompt, columns int) []string {
	text := s.spell(p.question())
	if s.emoji {
		text = "🔐 " + text
	}
	return divide(text, columns)
}

func (s *screen) paint(rows []string) []string {
	painted := make([]string, len(rows))
	for i, row := range rows {
		painted[i] = s.colour.Paint(cli.Bold, row)
	}
	return painted
}

// drawAnswer shows what the echo mode lets see of the answer, or how to change it.
func (s *screen) drawAnswer(p *prompt) {
	e := p.editor
	hint := ""
	switch {
	case e.echo == EchoSilent && e.began != EchoSilent:
		hint = "(no echo)"
	case e.echo == EchoMasked && !e.touched && e.began == EchoMasked:
		hint = "(press TAB for no echo) "
	}
	s.stars = -1
	if hint != "" {
		if cli.Width(hint) <= s.room {
			s.out.write([]byte(s.colour.Paint(cli.Dim, hint)))
		}
		return
	}
	visible := e.view(s.scratch.Bytes()[:0], s.room)
	s.out.write(visible)
	if e.echo == EchoMasked {
		s.stars = len(visible)
	}
	secret.Wipe(visible)
}

// typed shows what changed in the answer. Where only the number of asterisks
// did, a few bytes do it: serial consoles are slow. false asks for a redraw.
func (s *screen) typed(p *prompt) bool {
	if s.dumb {
		return true
	}
	if p.editor.echo != EchoMasked || s.stars < 0 {
		return false
	}
	stars := min(p.editor.characters(), s.room)
	more := strings.Repeat("*", max(stars-s.stars, 0))
	fewer := strings.Repeat("\b \b", max(s.stars-stars, 0))
	s.out.write([]byte(fewer + more))
	s.stars = stars
	return true
}

// drawDumb prints the question once; what is typed stays invisible.
func (s *screen) drawDumb(p *prompt) {
	if p == nil {
		s.clear()
		return
	}
	question := strings.Join(s.layout(p, s.out.columns()-1), "\r\n")
	if s.drawn == question {
		return
	}
	s.out.write([]byte(s.erase() + question))
	s.rows, s.drawn = 1, question
}

// finish leaves the question, without the answer's asterisks, as a line above.
func (s *screen) finish(p *prompt, remark string) {
	if s.dumb {
		s.out.write([]byte(remark + "\r\n"))
		s.rows, s.drawn = 0, ""
		return
	}
	rows := s.layout(p, s.out.columns()-1)
	if last := len(rows) - 1; rows[last] == emptyRow {
		rows = rows[:last]
	}
	s.out.write([]byte(s.erase() + strings.Join(s.paint(rows), "\r\n") + remark + "\r\n"))
}

// bell sounds where a key was refused.
func (s *screen) bell() { s.out.write([]byte{'\a'}) }
