package askpass

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
)

func TestStatusAndMessagesAroundAPrompt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	done := r.console.Show("Touch the key \x1b[2J")
	r.shows("Touch the key \\x1b[2J")
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	r.shows("Touch the key \\x1b[2J\nPIN: (press TAB for no echo) ")
	r.types("abc")
	r.shows("PIN: ***")
	other := r.console.Show(strings.Repeat("long ", 40))
	r.shows("Touch the key \\x1b[2J\n" + strings.Repeat("long ", 15) + "l...\nPIN: ***")
	if _, err := io.WriteString(r.console, "x: warning: one\nx: two"); err != nil {
		t.Fatal(err)
	}
	r.shows("x: warning: one\nx: two\nTouch the key \\x1b[2J\n" + strings.Repeat("long ", 15) + "l...\nPIN: ***")
	done()
	done()
	other()
	r.shows("x: warning: one\nx: two\nPIN: ***")
	r.types("d\n")
	a.want("abcd")
	r.shows("x: two\nPIN:\n")
	last := r.console.Show("Waiting")
	r.shows("PIN:\nWaiting")
	last()
	r.shows("PIN:\n")
}

func TestTextChangesWhileTyping(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := shown("PIN, 10 s", EchoMasked)
	a := r.ask(t.Context(), p)
	r.shows(") ")
	r.types("ab")
	r.shows("PIN, 10 s: **")
	r.console.setText(p, "PIN, 9 s\x1b")
	r.shows("PIN, 9 s\\x1b: **")
	r.types("c\n")
	a.want("abc")
}

func TestLongQuestionIsDivided(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text := "Please enter passphrase or recovery key for disk Samsung SSD 990 PRO with Heatsink 4TB (home) on /home"
	a := r.ask(t.Context(), shown(text, EchoMasked))
	r.shows("Please enter passphrase or recovery key for disk Samsung SSD 990 PRO with\nHeatsink 4TB (home) on /home: (press TAB for no echo) ")
	r.types("abc")
	r.shows("\nHeatsink 4TB (home) on /home: ***")
	r.types("\n")
	a.want("abc")
	long := r.ask(t.Context(), shown(strings.Repeat("x", 200), EchoMasked))
	r.shows(strings.Repeat("x", 79) + "\n" + strings.Repeat("x", 79) + "\n" + strings.Repeat("x", 42) + ": (press TAB for no echo) ")
	r.types("y\n")
	long.want("y")
}

func TestNarrowTerminalAndResize(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_ = pty.Setsize(r.tty, &pty.Winsize{Rows: 24, Cols: 27})
	a := r.ask(t.Context(), shown("PIN of the key", EchoMasked))
	r.shows("PIN of the key:\n> (press TAB for no echo)")
	r.types(strings.Repeat("x", 40))
	r.shows("\n> " + strings.Repeat("*", 24))
	r.types(strings.Repeat("\x7f", 38))
	r.shows("\n> **")
	_ = pty.Setsize(r.tty, &pty.Winsize{}) // a serial line: taken for 80 columns
	r.console.resized()
	r.shows("PIN of the key: **")
	r.types("\n")
	a.want("xx")
}

func TestDumbTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.console.screen.dumb = true
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	r.shows("PIN: ")
	r.types("abc\t\x7f")
	done := r.console.Show("Touch the key")
	_, _ = io.WriteString(r.console, "message\n")
	done()
	r.shows("\nPIN: ")
	r.types("\n")
	a.want("ab")
	r.shows("\n")
	if strings.Contains(r.output(), "\x1b") || strings.Contains(r.output(), "*") {
		t.Errorf("a dumb terminal got %q", r.output())
	}
	r.showsOnly("PIN:\nTouch the key\nPIN:\nmessage\nPIN:\n")
}

// TestOtherCharacterSet: the locale is ISO 8859-1, and so are the keys.
func TestOtherCharacterSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.console.screen.ascii = true
	done := r.console.Show("Taste berühren")
	a := r.ask(t.Context(), shown("Gerät", EchoMasked))
	r.shows("Taste ber?hren\nGer?t: (press TAB for no echo)")
	done()
	r.types("gr\xfc\xdfe\x7f\x7f")
	r.shows("Ger?t: ***")
	r.types("\n")
	a.want("gr\xfc")
}
