package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// ErrClosed ends the prompts of a Console that was closed.
var ErrClosed = errors.New("the console was closed")

// Console is one terminal on which any number of questions are asked, one after
// the other in the order they came but PINs first, while status lines and messages
// appear above.
// It has a file description of its own. The terminal's settings are changed only
// while a question is open and always restored: on an answer, on withdrawal, by
// SIGTSTP and [Console.Close]; SIGINT and the like withdraw the questions. All
// methods may be called from several goroutines.
//
// A single goroutine reads, and only while a question is open, so that no reader
// is left behind to eat the next prompt's keys.
type Console struct {
	mu      sync.Mutex
	tty     *terminal
	screen  screen
	prompts []*prompt // revealed; the first one has the keyboard
	hidden  []*prompt // wait for Reveal or a key
	status  []*statusLine
	running bool // the reading goroutine exists
	closed  bool
	// held counts the answers that are being tried: the terminal stays as it is for
	// questions, so that what is typed meanwhile does not appear on it.
	held int
	// continued says that suspend has drawn the question again and the SIGCONT of
	// the same stop is still to come.
	continued bool
	ended     chan struct{} // closed when that goroutine is gone; nil before the first
	input     secret.Secret // read buffer
	keys      controlKeys
}

// statusLine is one text of Show; its address is its identity.
type statusLine struct{ text string }

// OpenConsole opens a terminal by its path: /dev/tty, /dev/console,
// /proc/self/fd/N for one that is open already.
func OpenConsole(path string) (*Console, error) {
	tty, err := openTerminal(path)
	if err != nil {
		return nil, err
	}
	c := &Console{tty: tty, input: secret.New(256)}
	c.screen = screen{out: tty, colour: cli.Colour(), emoji: cli.Emoji(), ascii: !cli.UTF8(), scratch: secret.New(maxTyped)}
	// TERM is not set where udev or an init script starts us; every console
	// understands the few ECMA-48 sequences in use. Emacs' shell says dumb.
	c.screen.dumb = os.Getenv("TERM") == "dumb"
	return c, nil
}

// Close withdraws all questions, restores the terminal and closes it. Deferred in
// main, it does so when main panics, too.
func (c *Console) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	for _, p := range slices.Concat(c.prompts, c.hidden) {
		p.withdrawn = ErrClosed
	}
	c.wake()
	c.closed = true
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.screen.clear()
	c.tty.close()
	c.input.Wipe()
	c.screen.scratch.Wipe()
}

// ask puts a question and waits for its answer, which the caller wipes. Errors:
// the cause of ctx, [tokens.ErrCancelled], errTerminalGone, ErrClosed.
func (c *Console) ask(ctx context.Context, p *prompt) (secret.Secret, error) {
	if err := c.add(p); err != nil {
		return secret.Secret{}, err
	}
	if !p.revealed.isOpen() { // another console may do it, which wakes only itself
		select {
		case r := <-p.result:
			return r.secret, r.err
		case <-p.revealed.ch:
			c.look()
		case <-ctx.Done():
		}
	}
	select {
	case r := <-p.result:
		return r.secret, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	p.withdrawn = cause(ctx)
	c.wake()
	c.mu.Unlock()
	r := <-p.result
	return r.secret, r.err
}

// add queues a question and starts the reading goroutine.
func (c *Console) add(p *prompt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if err := c.start(); err != nil {
		return err
	}
	if c.held > 0 && len(c.prompts)+len(c.hidden) == 0 {
		c.tty.dropInput() // as take does
	}
	c.hidden = append(c.hidden, p) // until prepare finds it revealed
	c.wake()
	return nil
}

// wake has the reading goroutine look at the questions again. The lock is held.
func (c *Console) wake() {
	if !c.closed {
		c.tty.interrupt()
	}
}

// look is wake for others, after they have opened a question's gate.
func (c *Console) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// start takes the terminal and begins to read, unless that is so already. The
// lock is held.
func (c *Console) start() error {
	if c.tty.saved == nil {
		found, err := c.tty.take()
		if err != nil {
			return err
		}
		c.keys = keysOf(found, c.tty.signals)
	}
	if !c.running {
		c.running = true
		c.ended = make(chan struct{})
		go c.run(c.ended)
	}
	return nil
}

// setText changes a question while it is open. What was typed stays.
func (c *Console) setText(p *prompt, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.text = text
	if !c.closed && p.editor != nil && len(c.prompts) > 0 && c.prompts[0] == p {
		c.redraw()
	}
}

// run reads keys until no question is open.
func (c *Console) run(ended chan struct{}) {
	defer close(ended)
	watch := c.watchSignals()
	defer watch.stop()
	panicking := true
	defer func() {
		if panicking {
			c.tty.restore() // without the lock: the code that panicked may hold it
		}
	}()
	for c.prepare() {
		input, gone := c.tty.wait()
		if input || gone {
			c.handle(input)
		}
	}
	panicking = false
}

// prepare finishes withdrawn questions and shows the one whose turn it is. false
// means that none is left and the goroutine ends; the terminal was restored when
// the last one was finished.
func (c *Console) prepare() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range slices.Concat(c.prompts, c.hidden) {
		if p.withdrawn != nil {
			c.finish(p, promptResult{err: p.withdrawn})
		}
	}
	for _, p := range slices.Clone(c.hidden) {
		if p.revealed.isOpen() {
			c.prompts = append(c.prompts, p)
			c.hidden = slices.DeleteFunc(c.hidden, func(q *prompt) bool { return q == p })
		}
	}
	c.choose()
	if len(c.prompts) > 0 && c.prompts[0].editor == nil {
		c.open(c.prompts[0])
	}
	c.running = len(c.prompts)+len(c.hidden) > 0
	return c.running
}

// choose brings the question for a PIN to the front: its security device is there
// now, and the passphrase can wait. A question that was answered in part stays, so
// that nobody types the rest of a passphrase into a PIN.
func (c *Console) choose() {
	i := slices.IndexFunc(c.prompts, func(p *prompt) bool { return p.first })
	if i <= 0 {
		return
	}
	if open := c.prompts[0].editor; open != nil {
		if open.n > 0 {
			c.redraw() // says what waits
			return
		}
		c.prompts[0].suspend()
		c.tty.dropInput()
	}
	p := c.prompts[i]
	c.prompts = slices.Insert(slices.Delete(c.prompts, i, i+1), 0, p)
}

// open gives a question the keyboard.
func (c *Console) open(p *prompt) {
	p.editor = newEditor(p.echo, c.keys)
	p.editor.skipEnter, p.editor.skippable = p.dropEnter, p.skippable
	for _, line := range p.notices {
		c.screen.line(line)
	}
	c.redraw()
}

// redraw shows status lines and the open question. The lock is held.
func (c *Console) redraw() {
	texts := make([]string, len(c.status))
	for i, s := range c.status {
		texts[i] = s.text
	}
	var open *prompt
	if len(c.prompts) > 0 && c.prompts[0].editor != nil {
		open = c.prompts[0]
	}
	if i := slices.IndexFunc(c.prompts, func(p *prompt) bool { return p.first }); i > 0 && open != nil {
		texts = append(texts, cli.Escape(c.prompts[i].text)+" is wanted too: erase what you typed to answer that first")
	}
	c.screen.draw(texts, open)
}

// handle takes what was typed; with input false the terminal is gone.
func (c *Console) handle(input bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tty.saved == nil {
		return // stopped or released meanwhile
	}
	if input && len(c.prompts) == 0 {
		if len(c.hidden) > 0 {
			c.hidden[0].dropEnter = !c.hidden[0].skippable
			c.hidden[0].revealed.open() // what was typed is read once it is shown
		}
		return
	}
	n, err := 0, errTerminalGone
	if input {
		n, err = c.tty.read(c.input.Bytes())
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.typed(n)
}

// typed hands n bytes of the read buffer to the open question. Bytes behind the
// end of an answer are dropped with the rest of the input.
func (c *Console) typed(n int) {
	typed := c.input.Bytes()[:n]
	defer secret.Wipe(typed)
	p, changed := c.prompts[0], false
	if p.onKey != nil {
		p.onKey()
	}
	for _, b := range typed {
		switch act := p.editor.feed(b, time.Now()); act {
		case actRedraw:
			changed = true
		case actBell:
			c.screen.bell()
		case actEnter, actSkip, actCancel:
			c.complete(p, act)
			return
		}
	}
	if changed && !c.screen.typed(p) {
		c.redraw()
	}
}

// complete ends a question as the person wanted.
func (c *Console) complete(p *prompt, act action) {
	switch {
	case act == actSkip:
		c.screen.finish(p, "(skipped)")
		c.finish(p, promptResult{err: tokens.ErrCancelled})
	case act == actCancel:
		c.screen.finish(p, "^C")
		c.finish(p, promptResult{err: tokens.ErrCancelled})
	case p.editor.full:
		c.screen.line(fmt.Sprintf("That is too long: an answer has at most %d bytes. Nothing was used, please type it again.", maxTyped))
		p.editor.erase(0)
		c.tty.dropInput()
		c.redraw()
	default:
		c.screen.finish(p, "")
		c.finish(p, promptResult{secret: p.editor.answer()})
	}
}

// finish removes a question and hands over its result. Text that was typed into
// it is gone, read or not. The lock is held.
func (c *Console) finish(p *prompt, r promptResult) {
	wasOpen := p.editor != nil
	c.prompts = slices.DeleteFunc(c.prompts, func(q *prompt) bool { return q == p })
	c.hidden = slices.DeleteFunc(c.hidden, func(q *prompt) bool { return q == p })
	if wasOpen {
		p.editor.wipe()
		c.tty.dropInput()
	}
	if p.keep {
		c.held++
		p.keeps = true
	}
	c.giveBack() // before the asker goes on and prints
	c.redraw()
	p.result <- r
}

// giveBack restores the terminal when nothing needs it any more. The lock is held.
func (c *Console) giveBack() {
	if len(c.prompts)+len(c.hidden)+c.held == 0 {
		c.tty.restore()
	}
}

// release ends what a prompt with keep began.
func (c *Console) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held--
	c.giveBack()
}

// fail ends all questions.
func (c *Console) fail(err error) {
	for _, p := range slices.Concat(c.prompts, c.hidden) {
		c.finish(p, promptResult{err: err})
	}
}
