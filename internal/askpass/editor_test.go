package askpass

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// FuzzEditor types anything, with pauses, and looks at what a terminal would get.
func FuzzEditor(f *testing.F) {
	f.Add([]byte("hunter2\n"), uint8(0), uint8(20))
	f.Add([]byte("gr\xc3\xbc\x7f\x7f\x15\x17\t\x1b[A\x16\x1b\x00\x04"), uint8(1), uint8(3))
	f.Fuzz(func(t *testing.T, keys []byte, echo, columns uint8) {
		e := newEditor(Echo(echo%3), controlKeys{interrupt: 3, erase: 1, kill: 2, word: 5})
		defer e.wipe()
		now := time.Unix(1, 0)
		for _, b := range keys {
			now = now.Add(time.Duration(b) * time.Millisecond)
			before := e.n
			act := e.feed(b, now)
			if e.n > before+1 || e.n < 0 || e.n > maxTyped {
				t.Fatalf("%d bytes after %d and key %#x", e.n, before, b)
			}
			if (act == actNone || act == actBell) && e.n != before {
				t.Fatalf("key %#x changes the text unseen", b)
			}
		}
		answer := e.answer()
		defer answer.Wipe()
		if strings.Contains(string(answer.Bytes()), "\x00") {
			t.Fatal("NUL in an answer")
		}
		view := e.view(make([]byte, 0, maxTyped), int(columns))
		width := 0
		for _, r := range string(view) {
			if r < ' ' || r == 0x7f || r == utf8.RuneError && e.echo == EchoMasked {
				t.Fatalf("a terminal would get %q", view)
			}
			width += runeWidth(r, utf8.RuneLen(r))
		}
		if width > int(columns) {
			t.Fatalf("%d columns of %d", width, columns)
		}
	})
}

// TestTerminalsOwnKeys: stty may give other keys the meaning of erase, kill, word
// and interrupt.
func TestTerminalsOwnKeys(t *testing.T) {
	t.Parallel()
	settings := &unix.Termios{}
	settings.Cc[unix.VERASE], settings.Cc[unix.VKILL], settings.Cc[unix.VWERASE], settings.Cc[unix.VINTR] = 0x08, 0x18, 0x05, 0x19
	for keys, want := range map[string]string{"abc\x08d": "abd", "abc\x18d": "d", "ab cd\x05e": "ab e"} {
		e := newEditor(EchoMasked, keysOf(settings, true))
		for _, b := range []byte(keys) {
			e.feed(b, time.Time{})
		}
		if got := string(e.text.Bytes()[:e.n]); got != want {
			t.Errorf("%q gives %q, want %q", keys, got, want)
		}
		e.wipe()
	}
	e := newEditor(EchoMasked, keysOf(settings, false))
	defer e.wipe()
	if act := e.feed(0x19, time.Time{}); act != actCancel {
		t.Errorf("the interrupt key does %v", act)
	}
	if act := newEditor(EchoMasked, keysOf(settings, true)).feed(0x19, time.Time{}); act != actBell {
		t.Errorf("a key that the terminal turns into a signal does %v", act)
	}
}

// TestWayOutOfAQuestion: Enter or Esc before anything is typed means that there is no
// answer, where the question may be skipped.
func TestWayOutOfAQuestion(t *testing.T) {
	for keys, want := range map[string]action{"\r": actSkip, "\x1b": actSkip, "a\r": actEnter, "a\x1b": actNone, "a\b\r": actSkip} {
		e := newEditor(EchoSilent, controlKeys{})
		e.skippable = true
		var got action
		for i := range len(keys) {
			got = e.feed(keys[i], time.Time{})
		}
		if got != want {
			t.Errorf("%q: %v", keys, got)
		}
		e.wipe()
	}
	e := newEditor(EchoSilent, controlKeys{})
	if e.feed('\r', time.Time{}) != actEnter {
		t.Error("an empty passphrase is one elsewhere")
	}
}
