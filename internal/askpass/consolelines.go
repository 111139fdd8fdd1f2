package askpass

import (
	"slices"
	"strings"

	"luksmith/internal/cli"
)

// Show displays a line above the prompt until done is called.
func (c *Console) Show(text string) (done func()) {
	line := &statusLine{cli.Escape(text)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return func() {}
	}
	c.status = append(c.status, line)
	if c.screen.dumb {
		c.screen.line(line.text)
	}
	c.redraw()
	return func() { c.unshow(line) }
}

func (c *Console) unshow(line *statusLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.status, line)
	if i < 0 || c.closed {
		return
	}
	c.status = slices.Delete(c.status, i, i+1)
	c.redraw()
}

// note prints a message above status lines and prompt.
func (c *Console) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.screen.line(text)
		c.redraw()
	}
}

// Write prints lines above status lines and prompt, unescaped: it is meant as the
// writer below a cli.Stream on the same terminal. A last line without an end gets
// one while a question is open.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, ErrClosed
	}
	text := string(p)
	if c.screen.rows > 0 && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	c.screen.print(text)
	c.redraw()
	return len(p), nil
}
