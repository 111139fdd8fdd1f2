package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
)

func TestTyping(t *testing.T) {
	const hint = "(press TAB for no echo) "
	for _, c := range []struct {
		name  string
		echo  Echo
		keys  string
		shows string // behind "PIN: ", before Enter
		want  string
	}{
		{"nothing", EchoMasked, "", hint, ""},
		{"text", EchoMasked, "hunter2", "*******", "hunter2"},
		{"carriage return ends too", EchoMasked, "ab\r", "", "ab"},
		{"UTF-8 by code point", EchoMasked, "grüße日🔐", "*******", "grüße日🔐"},
		{"invalid UTF-8 by byte", EchoMasked, "\xe4\xf6x", "***", "\xe4\xf6x"},
		{"backspace", EchoMasked, "abc\x7f\bd", "** ", "ad"},
		{"backspace takes a code point", EchoMasked, "a日\x7f", "* ", "a"},
		{"backspace to nothing", EchoMasked, "a\x7f", " ", ""},
		{"first key backspace silences", EchoMasked, "\x7fab", "(no echo)", "ab"},
		{"kill", EchoMasked, "abc\x15de", "** ", "de"},
		{"word", EchoMasked, "one two  \x17x", "*****    ", "one x"},
		{"tab silences", EchoMasked, "abc\tde", "(no echo)", "abcde"},
		{"tab twice shows again", EchoMasked, "abc\tde\tf", "******", "abcdef"},
		{"cursor and function keys are not text", EchoMasked, "a\x1b[A\x1bOP\x1b[[Ab\x1b[15~c", "***", "abc"},
		{"pasted with marks", EchoMasked, "\x1b[200~pa ste\x1b[201~", "******", "pa ste"},
		{"literal next", EchoMasked, "a\x16\tb\x16\x04\x16\x1bc", "******", "a\tb\x04\x1bc"},
		{"control characters and NUL are refused", EchoMasked, "a\x01\x00\x16\x00b", "**", "ab"},
		{"flow control does not freeze", EchoMasked, "a\x13b\x11c", "***", "abc"},
		{"echo", EchoText, "grüße 日\x1b[C\x16\x1b", "grüße 日?", "grüße 日\x1b"},
		{"echo, tab silences", EchoText, "abc\t", "(no echo)", "abc"},
		{"echo, tab twice", EchoText, "abc\t\td", "abcd", "abcd"},
		{"silent", EchoSilent, "abc", "", "abc"},
		{"silent, tab masks", EchoSilent, "abc\td", "****", "abcd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			before := r.settings()
			a := r.ask(t.Context(), shown("PIN", c.echo))
			first := map[Echo]string{EchoMasked: hint}[c.echo]
			r.shows("PIN: " + first)
			if s := r.settings(); s.Lflag&(unix.ECHO|unix.ICANON) != 0 {
				t.Error("the terminal echoes")
			}
			r.types(c.keys)
			if !strings.HasSuffix(c.keys, "\r") {
				r.shows("PIN: " + c.shows)
				r.types("\n")
			}
			a.want(c.want)
			if r.settings() != before {
				t.Error("the terminal is not as it was")
			}
			r.showsOnly("PIN:\n")
			if c.echo != EchoText && c.want != "" && strings.Contains(r.output(), c.want) {
				t.Error("the answer was shown")
			}
		})
	}
}

func TestGivingUp(t *testing.T) {
	for name, c := range map[string]struct{ keys, leaves string }{
		"^D":               {"\x04", "PIN: (skipped)\n"},
		"^D after text":    {"abc\x04", "PIN: (skipped)\n"},
		"^C as a byte":     {"abc\x03", "PIN: ^C\n"},
		"^D in a bad time": {"\x1b\x1b[\x04", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			before := r.settings()
			a := r.ask(t.Context(), shown("PIN", EchoMasked))
			r.shows(": (press TAB for no echo) ")
			r.types(c.keys)
			if c.leaves == "" {
				time.Sleep(2 * escapeGap)
				r.types("\x04")
			}
			if _, err := a.result(); !errors.Is(err, tokens.ErrCancelled) {
				t.Errorf("%v, want ErrCancelled", err)
			}
			r.shows(c.leaves)
			if r.settings() != before {
				t.Error("the terminal is not as it was")
			}
		})
	}
}

func TestTooLong(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	r.shows(") ")
	long := strings.Repeat("x", maxTyped+1)
	r.types(long)
	r.shows(strings.Repeat("*", 79-len("PIN: ")))
	r.types("\n")
	r.shows(fmt.Sprintf("That is too long: an answer has at most %d bytes. Nothing was used, please\n  type it again.\nPIN: ", maxTyped))
	r.types("short\n")
	a.want("short")
}

func TestLongestAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.ask(t.Context(), shown("PIN", EchoSilent))
	r.shows("PIN: ")
	r.types(strings.Repeat("y", maxTyped) + "\n")
	a.want(strings.Repeat("y", maxTyped))
}

// TestWithdrawn: another source answered. The half-typed text is wiped and what
// the terminal holds goes nowhere.
func TestWithdrawn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.settings()
	ctx, cancel := context.WithCancelCause(t.Context())
	a := r.ask(ctx, shown("first", EchoMasked))
	r.shows(") ")
	r.types("half")
	r.shows("first: ****")
	why := errors.New("a token was plugged in")
	cancel(why)
	if _, err := a.result(); !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	r.showsOnly("")
	if r.settings() != before {
		t.Error("the terminal is not as it was")
	}
	b := r.ask(t.Context(), shown("second", EchoMasked))
	r.shows("second: (press TAB for no echo) ")
	r.types("x\n")
	b.want("x")
}

// TestNothingIsHandedOn: two lines pasted at once answer one question only.
func TestNothingIsHandedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.ask(t.Context(), shown("first", EchoMasked))
	b := r.ask(t.Context(), shown("other", EchoMasked))
	r.shows(") ")
	first, second, name := a, b, "other"
	if strings.HasPrefix(testenv.Render(r.output(), 80), "other") {
		first, second, name = b, a, "first"
	}
	r.types("one\ntwo\nthr")
	first.want("one")
	r.shows(name + ": (press TAB for no echo)")
	r.types("2\n")
	second.want("2")
	r.shows(name + ":\n")
	// Nor does it reach whoever reads the terminal next.
	c := r.ask(t.Context(), shown("third", EchoMasked))
	r.shows(") ")
	r.types("three\nls\n")
	c.want("three")
	if got := r.leftOver(0); got != "" {
		t.Errorf("the next reader gets %q", got)
	}
}

// TestOneAfterTheOther: twenty questions at once share the terminal.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	list := map[string]*asked{}
	for i := range 20 {
		name := fmt.Sprintf("disk %02d", i)
		list[name] = r.ask(t.Context(), shown(name, EchoMasked))
	}
	for range 20 {
		name := ""
		r.until("another question", func(screen string) bool {
			line := screen[strings.LastIndexByte(screen, '\n')+1:]
			name, _, _ = strings.Cut(line, ":")
			return list[name] != nil && strings.HasSuffix(line, "echo)")
		})
		r.types(name + "\n")
		list[name].want(name)
		delete(list, name)
	}
}

// TestPINGoesFirst: a security key is plugged in while the passphrase is asked for.
func TestPINGoesFirst(t *testing.T) {
	for name, c := range map[string]struct{ typed, erase string }{
		"nothing typed": {"", ""},
		"half typed":    {"half of a pass", "\x15"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			passphrase := shown("Passphrase", EchoMasked)
			passphrase.notices = []string{"Wrong passphrase, please try again."}
			first := r.ask(t.Context(), passphrase)
			r.shows("Passphrase: (press TAB for no echo)")
			r.types(c.typed)
			pin := shown("PIN of Key", EchoMasked)
			pin.first = true
			second := r.ask(t.Context(), pin)
			if c.typed != "" {
				r.shows("PIN of Key is wanted too: erase what you typed to answer that first\nPassphrase: " + strings.Repeat("*", len(c.typed)))
				r.types(c.erase)
			}
			r.shows("PIN of Key: (press TAB for no echo)")
			r.types("1234\n")
			second.want("1234")
			r.shows("PIN of Key:\nPassphrase: (press TAB for no echo)")
			r.types("right\n")
			first.want("right")
			r.showsOnly("Wrong passphrase, please try again.\nPIN of Key:\nPassphrase:\n")
		})
	}
}

// TestPINDoesNotInterruptAnother: two keys ask, one after the other.
func TestPINDoesNotInterruptAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var answers []*asked
	for _, name := range []string{"A", "B"} {
		p := shown("PIN of "+name, EchoMasked)
		p.first = true
		answers = append(answers, r.ask(t.Context(), p))
		r.shows("PIN of A: (press TAB for no echo)")
	}
	r.types("a\n")
	answers[0].want("a")
	r.shows("PIN of B: (press TAB for no echo)")
	r.types("b\n")
	answers[1].want("b")
}

func TestHiddenUntilAKey(t *testing.T) {
	for name, c := range map[string]struct{ first, rest, want string }{
		"the key counts": {"h", "unter2\n", "hunter2"},
		"Enter does not": {"\n", "hunter2\n", "hunter2"},
		"all at once":    {"hunter2\n", "", "hunter2"},
		"Enter twice":    {"\n\n", "", ""},
		"kill is a key":  {"\x15", "x\n", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			hidden := newGate()
			a := r.ask(t.Context(), hiddenBy(hidden, "PIN", EchoMasked))
			for r.settings().Lflag&unix.ECHO != 0 {
				time.Sleep(time.Millisecond)
			}
			if hidden.isOpen() || r.output() != "" {
				t.Error("the prompt is not hidden")
			}
			r.types(c.first)
			select {
			case <-hidden.ch:
			case <-time.After(patience):
				t.Fatal("a key does not reveal the prompt")
			}
			r.types(c.rest)
			a.want(c.want)
		})
	}
}

// TestHiddenDoesNotHoldUpOthers: a question that waits for its token leaves the
// keyboard to one that is shown.
func TestHiddenDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	gate := newGate()
	hidden := r.ask(t.Context(), hiddenBy(gate, "first", EchoMasked))
	open := r.ask(t.Context(), shown("second", EchoMasked))
	r.shows("second: (press TAB for no echo) ")
	r.types("2\n")
	open.want("2")
	if gate.isOpen() {
		t.Error("typing for one question reveals the other")
	}
	gate.open()
	r.console.look()
	r.shows("first: (press TAB for no echo) ")
	r.types("1\n")
	hidden.want("1")
}

func TestHungUpTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	b := r.ask(t.Context(), hiddenBy(newGate(), "hidden", EchoMasked))
	r.shows(") ")
	r.types("abc")
	_ = r.tty.Close()
	_ = r.master.Close()
	for _, q := range []*asked{a, b} {
		if _, err := q.result(); !errors.Is(err, errTerminalGone) {
			t.Errorf("%v, want errTerminalGone", err)
		}
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.settings()
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	r.shows(") ")
	r.console.Close()
	r.console.Close()
	if _, err := a.result(); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if r.settings() != before {
		t.Error("the terminal is not as it was")
	}
	if _, err := r.console.ask(t.Context(), shown("PIN", EchoMasked)); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := r.console.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	r.console.Show("x")()
}

func TestOpenConsoleRefuses(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, "/dev/null", "/nonexistent"} {
		if c, err := OpenConsole(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
			c.Close()
		}
	}
}

// TestNoReaderIsLeft counts goroutines that read a terminal nobody asks on.
func TestNoReaderIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		a := r.ask(ctx, shown("PIN", EchoMasked))
		r.shows(") ")
		cancel()
		if _, err := a.result(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	r.types("for the shell\n")
	if got := r.leftOver(14); got != "for the shell\n" {
		t.Errorf("the next reader gets %q", got)
	}
}
