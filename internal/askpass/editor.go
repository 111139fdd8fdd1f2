package askpass

import (
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
)

// Echo is what a terminal shows of what is typed: crypttab's password-echo=.
type Echo int

// The modes. TAB switches between silence and the mode that a prompt began with.
const (
	EchoMasked Echo = iota // an asterisk for each character; the default
	EchoText               // the text itself
	EchoSilent             // nothing
)

// maxTyped is the longest answer, as in systemd (LINE_MAX).
const maxTyped = 2048

// escapeGap is how long after ESC a byte still belongs to the same key. A serial
// line at 1200 baud needs 8 ms for one.
const escapeGap = 100 * time.Millisecond

// action is what a typed byte means for the prompt.
type action int

const (
	actNone   action = iota
	actRedraw        // the line looks different
	actBell          // refused
	actEnter         // the answer is complete
	actSkip          // ^D: no answer
	actCancel        // ^C where the terminal makes no signal of it
)

// escapeState is how far a key that sends several bytes has been read.
type escapeState int

const (
	escNone    escapeState = iota
	escStarted             // ESC
	escCSI                 // ESC [
	escOne                 // one more byte, then done
)

// editor is one line that is being typed. Its bytes live in locked memory only.
type editor struct {
	text    secret.Secret // maxTyped bytes, of which n are in use
	n       int
	echo    Echo // now
	began   Echo // at first
	touched bool // something was typed
	full    bool // something did not fit: the answer is not what was typed
	literal bool // ^V: the next byte is text
	// skipEnter drops a first line end: it opened the prompt.
	skipEnter bool
	// skippable makes an empty answer, and ESC before any text, mean that there is none.
	skippable bool
	keys      controlKeys
	state     escapeState
	lastByte  time.Time
}

// controlKeys are the bytes that the terminal's settings give a meaning, besides
// the fixed ones. 0 is none.
type controlKeys struct{ interrupt, erase, kill, word byte }

func keysOf(t *unix.Termios, signals bool) controlKeys {
	k := controlKeys{erase: t.Cc[unix.VERASE], kill: t.Cc[unix.VKILL], word: t.Cc[unix.VWERASE]}
	if !signals {
		k.interrupt = t.Cc[unix.VINTR]
	}
	return k
}

func newEditor(echo Echo, keys controlKeys) *editor {
	return &editor{text: secret.New(maxTyped), echo: echo, began: echo, keys: keys}
}

// answer is a copy of what was typed, for the caller to wipe.
func (e *editor) answer() secret.Secret { return secret.Copy(e.text.Bytes()[:e.n]) }

func (e *editor) wipe() {
	e.n = 0
	e.text.Wipe()
}

// characters counts code points; a byte that is not UTF-8 counts as one, which is
// right for terminals with 8-bit character sets.
func (e *editor) characters() int { return utf8.RuneCount(e.text.Bytes()[:e.n]) }

// feed takes one byte from the terminal.
func (e *editor) feed(b byte, now time.Time) action {
	gap := now.Sub(e.lastByte)
	e.lastByte = now
	if e.literal {
		e.literal = false
		return e.insert(b)
	}
	if e.state != escNone && gap <= escapeGap {
		e.escape(b)
		return actNone
	}
	e.state = escNone
	if b == '\n' || b == '\r' {
		return e.enter()
	}
	e.skipEnter = false
	switch b {
	case 0x1b:
		if e.skippable && e.n == 0 {
			return actSkip
		}
		e.state = escStarted
		return actNone
	case 0x04: // ^D
		return actSkip
	case 0x16: // ^V
		e.literal = true
		return actNone
	case '\t':
		return e.toggle()
	case '\b', 0x7f:
		return e.backspace()
	case 0x15: // ^U
		return e.erase(0)
	case 0x17: // ^W
		return e.erase(e.wordStart())
	}
	return e.settings(b)
}

// settings handles what the terminal's own settings give a meaning.
func (e *editor) settings(b byte) action {
	switch k := e.keys; {
	case b == 0:
		return actBell // no passphrase has it: lists of them are divided by it
	case b == k.interrupt:
		return actCancel
	case b == k.erase:
		return e.backspace()
	case b == k.kill:
		return e.erase(0)
	case b == k.word:
		return e.erase(e.wordStart())
	case b < ' ':
		return actBell // Unlike systemd, control characters need ^V to become text.
	}
	return e.insert(b)
}

// escape swallows the rest of a cursor or function key and the marks around
// pasted text: ECMA-48 §5.4, and ESC [ [ of the Linux console's F1 to F5.
func (e *editor) escape(b byte) {
	switch {
	case e.state == escStarted && b == '[':
		e.state = escCSI
	case e.state == escStarted && b == 'O', e.state == escCSI && b == '[':
		e.state = escOne
	case e.state == escCSI && b < 0x40:
		// a parameter: the sequence goes on
	default:
		e.state = escNone
	}
}

func (e *editor) enter() action {
	if e.skipEnter {
		e.skipEnter = false
		return actNone
	}
	if e.skippable && e.n == 0 {
		return actSkip
	}
	return actEnter
}

func (e *editor) insert(b byte) action {
	if b == 0 {
		return actBell
	}
	if e.n == maxTyped {
		e.full = true
		return actBell
	}
	e.text.Bytes()[e.n] = b
	e.n++
	e.touched = true
	return actRedraw
}

// backspace removes one character. As the very first key it silences the prompt,
// as in systemd.
func (e *editor) backspace() action {
	if e.n == 0 {
		if !e.touched && e.echo == EchoMasked {
			return e.toggle()
		}
		return actBell
	}
	_, size := utf8.DecodeLastRune(e.text.Bytes()[:e.n])
	return e.erase(e.n - size)
}

// erase cuts the text at byte keep.
func (e *editor) erase(keep int) action {
	secret.Wipe(e.text.Bytes()[keep:e.n])
	e.n = keep
	e.full = e.full && keep > 0
	return actRedraw
}

// wordStart is where the last word begins, with blanks after it counted in.
func (e *editor) wordStart() int {
	b := e.text.Bytes()
	i := e.n
	for i > 0 && b[i-1] == ' ' {
		i--
	}
	for i > 0 && b[i-1] != ' ' {
		i--
	}
	return i
}

// toggle switches between silence and the first mode; a prompt that began silent
// shows asterisks.
func (e *editor) toggle() action {
	switch {
	case e.echo != EchoSilent:
		e.echo = EchoSilent
	case e.began == EchoSilent:
		e.echo = EchoMasked
	default:
		e.echo = e.began
	}
	return actRedraw
}

// view appends to dst what the terminal shows of the text, in at most columns.
// dst must have room for maxTyped bytes. Of a longer text the end is shown.
func (e *editor) view(dst []byte, columns int) []byte {
	switch e.echo {
	case EchoMasked:
		for range min(e.characters(), columns) {
			dst = append(dst, '*')
		}
	case EchoText:
		dst = appendVisible(dst, e.text.Bytes()[:e.n], columns)
	}
	return dst
}

// appendVisible appends the end of text that fits; a character that is not
// printable shows as a question mark.
func appendVisible(dst, text []byte, columns int) []byte {
	start, used := len(text), 0
	for start > 0 {
		r, size := utf8.DecodeLastRune(text[:start])
		w := runeWidth(r, size)
		if used+w > columns {
			break
		}
		used += w
		start -= size
	}
	for start < len(text) {
		r, size := utf8.DecodeRune(text[start:])
		if visible(r, size) {
			dst = append(dst, text[start:start+size]...)
		} else {
			dst = append(dst, '?')
		}
		start += size
	}
	return dst
}

func visible(r rune, size int) bool {
	return cli.Printable(r) && (r != utf8.RuneError || size > 1)
}

func runeWidth(r rune, size int) int {
	if !visible(r, size) {
		return 1
	}
	return cli.RuneWidth(r)
}
