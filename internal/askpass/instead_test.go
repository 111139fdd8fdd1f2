package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// keyPrompt asks for the PIN of a device that takes at most 63 bytes.
var keyPrompt = tokens.Prompt{Text: "PIN of the key", Credential: "fido2-pin", TriesLeft: 8, Check: func(pin secret.Secret) error {
	if pin.Len() > 63 {
		return errors.New("it is too long")
	}
	return nil
}}

// withPassphrase are options of a volume that the text opens.
func withPassphrase(o Options, passphrase string) (Options, *[]string) {
	var judged []string
	o.Instead = func() string { return "passphrase" }
	o.IsPassphrase = func(_ context.Context, typed secret.Secret) bool {
		judged = append(judged, string(typed.Bytes()))
		return string(typed.Bytes()) == passphrase
	}
	return o, &judged
}

func TestPINQuestionSaysWhatItTakes(t *testing.T) {
	t.Parallel()
	r, dir := newRig(t), t.TempDir()
	o, _ := withPassphrase(Options{Console: r.console, AgentDir: dir}, "hunter2")
	p := New(o).Start(t.Context(), Question{Prompt: keyPrompt})
	const want = "PIN of the key, 8 tries left, or Enter for the passphrase:"
	r.until(want, func(screen string) bool { return strings.Contains(screen, want) })
	if _, content := askFile(t, dir); member(content, "Message") != want {
		t.Errorf("agents see %q", member(content, "Message"))
	}
	p.Cancel()
	_, _ = p.Wait()
	for name, q := range map[string]tokens.Prompt{
		"new PIN":    {Text: "New PIN", Credential: "fido2-pin", New: true},
		"passphrase": {Text: "Passphrase", Credential: "passphrase"},
	} {
		p := New(o).Start(t.Context(), Question{Prompt: q})
		if _, content := askFile(t, dir); strings.Contains(content, "Enter") {
			t.Errorf("%s: %s", name, content)
		}
		p.Cancel()
		_, _ = p.Wait()
	}
}

func TestEnterLeadsOnToThePassphraseAtOnce(t *testing.T) {
	t.Parallel()
	for _, source := range []Source{FromConsole, FromAgent} {
		r, dir := newRig(t), t.TempDir()
		o, judged := withPassphrase(Options{Console: r.console, AgentDir: dir}, "hunter2")
		a := New(o)
		pin := a.Start(t.Context(), Question{Prompt: keyPrompt})
		passphrase := a.Start(t.Context(), PassphraseQuestion{Kind: Passphrase, Disk: "X"}.Question())
		r.until("the PIN first", func(screen string) bool { return strings.Contains(screen, "PIN of the key") })
		if source == FromConsole {
			r.types("\n")
		} else {
			reply(t, askFileOf(t, dir, "PIN"), "+")
		}
		if _, err := pin.Wait(); !errors.Is(err, tokens.ErrSkipped) || !errors.Is(err, tokens.ErrCancelled) {
			t.Errorf("%s: %v", source, err)
		}
		r.shows("Please enter passphrase for disk X: (press TAB for no echo)")
		r.types("typed\n")
		answer, err := passphrase.Wait()
		if err != nil || texts(answer.Secrets) != "typed" || len(*judged) > 0 {
			t.Errorf("%s: %q, %v, judged %q", source, texts(answer.Secrets), err, *judged)
		}
		answer.Wipe()
	}
}

// askFileOf waits for the question whose message holds text, and returns its file.
func askFileOf(t *testing.T, dir, text string) (content string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, content := range askFiles(t, dir) {
			if strings.Contains(member(content, "Message"), text) {
				return content
			}
		}
	}
	t.Fatalf("no question with %q", text)
	return ""
}

func TestPassphraseTypedForThePINIsNotHandedOut(t *testing.T) {
	t.Parallel()
	for _, source := range []Source{FromConsole, FromAgent, FromPlymouth} {
		for _, passphrase := range []string{"hunter2", strings.Repeat("long ", 20)} {
			r, dir := newRig(t), t.TempDir()
			o, judged := withPassphrase(Options{Console: r.console, AgentDir: dir}, passphrase)
			if source == FromPlymouth {
				o.Plymouth = startPlymouth(t, &fakePlymouth{password: passphrase}).address
			}
			p := New(o).Start(t.Context(), Question{Prompt: keyPrompt})
			switch source {
			case FromConsole:
				r.until("the question", func(screen string) bool { return strings.Contains(screen, "PIN of the key") })
				r.types(passphrase + "\n")
			case FromAgent:
				reply(t, askFileOf(t, dir, "PIN"), "+"+passphrase)
			}
			answer, err := p.Wait()
			if !errors.Is(err, tokens.ErrSkipped) || answer.Secrets != nil || fmt.Sprint(*judged) != fmt.Sprint([]string{passphrase}) {
				t.Errorf("%s, %d bytes: %q, %v, judged %q", source, len(passphrase), texts(answer.Secrets), err, *judged)
			}
		}
	}
}

func TestTextThatCannotBeThePINIsAskedForAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	messages, out := recorder()
	o, judged := withPassphrase(Options{Console: r.console, Messages: messages}, "hunter2")
	p := New(o).Start(t.Context(), Question{Prompt: keyPrompt})
	for i, answer := range []string{strings.Repeat("x", 64), "1234"} {
		r.until("the question once more", func(screen string) bool { return strings.Count(screen, "PIN of the key") == i+1 })
		r.types(answer + "\n")
	}
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "1234" || len(*judged) != 2 {
		t.Errorf("%q, %v, judged %q", texts(answer.Secrets), err, *judged)
	}
	answer.Wipe()
	if got := out.String(); got != "That cannot be the PIN: it is too long. It was not sent, please try again.\n" {
		t.Errorf("said %q", got)
	}
}

// TestEnterWithoutAnythingInstead: where nothing else opens the volume, one Enter does not
// end the boot; where the command has other ways, it leads on to them.
func TestEnterWithoutAnythingInstead(t *testing.T) {
	t.Parallel()
	for name, instead := range map[string]func() string{"a PIN has to come": nil, "there are other ways": func() string { return "" }} {
		r := newRig(t)
		q := keyPrompt
		q.Check = nil
		p := New(Options{Console: r.console, Instead: instead}).Start(t.Context(), Question{Prompt: q})
		r.until("the question", func(screen string) bool { return strings.Contains(screen, "PIN of the key") })
		r.types("\n")
		if instead == nil {
			r.until("the question once more", func(screen string) bool { return strings.Count(screen, "PIN of the key") == 2 })
			r.types("1234\n")
		}
		answer, err := p.Wait()
		if instead == nil && (err != nil || texts(answer.Secrets) != "1234") || instead != nil && !errors.Is(err, tokens.ErrSkipped) {
			t.Errorf("%s: %q, %v", name, texts(answer.Secrets), err)
		}
		answer.Wipe()
	}
}

// TestAgentThatGoesOnAnsweringIsNotAskedForEver: one that answers every question by
// itself with the same text.
func TestAgentThatGoesOnAnsweringIsNotAskedForEver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := New(Options{AgentDir: dir}).Start(t.Context(), Question{Prompt: keyPrompt})
	answered := map[string]bool{}
	for !isDone(p) {
		for path, content := range askFiles(t, dir) {
			if !answered[path] {
				answered[path] = true
				reply(t, content, "+"+strings.Repeat("x", 64))
			}
		}
		time.Sleep(time.Millisecond)
	}
	answer, err := p.Wait()
	if err != nil || len(answered) != impossibleAnswers || texts(answer.Secrets) != strings.Repeat("x", 64) {
		t.Errorf("%d questions, %v", len(answered), err)
	}
	answer.Wipe()
}

func TestNobodyIsToldThatAPINWasWrongWhenNoneWasTyped(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	q := keyPrompt
	q.Person = true
	a := New(Options{Console: r.console, Environment: fakeEnvironment("PIN", "1111"), Prefix: "cryptenroll"})
	p := a.Start(t.Context(), Question{Prompt: q})
	r.showsOnly("PIN of the key, 8 tries left: (press TAB for no echo)")
	r.types("1234\n")
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "1234" {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
}

func TestSourceThatNoDeviceLookedAtAnswersAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := New(Options{Prefix: "cryptenroll", PINFile: write(t, dir, "pin", "1111\n", 0o600), Environment: fakeEnvironment("PIN", "2222")})
	q := keyPrompt
	for _, c := range []struct {
		unread bool
		want   string
	}{{false, "1111"}, {true, "1111"}, {false, "2222"}, {true, "2222"}} {
		q.Unread = c.unread
		if got, err := ask(t, a, q); got != c.want || err != nil {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	q.Unread = false
	if got, err := ask(t, a, q); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("a third source: %q, %v", got, err)
	}
}

// TestTypedInputIsNotLeftToTheNextReader: more than one read of the console takes.
func TestTypedInputIsNotLeftToTheNextReader(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := New(Options{Console: r.console}).Start(t.Context(), Question{Prompt: keyPrompt})
	r.shows("(press TAB for no echo)")
	r.console.mu.Lock() // the reader waits
	text := "1234\n" + strings.Repeat("x", 300) + "\n"
	r.types(text)
	waiting := func() int {
		n, err := unix.IoctlGetInt(int(r.tty.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for deadline := time.Now().Add(patience); waiting() < len(text) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	before := waiting()
	r.console.mu.Unlock()
	answer, err := p.Wait()
	if left := waiting(); err != nil || before != len(text) || left != 0 {
		t.Errorf("%d bytes typed, %d left, %v", before, left, err)
	}
	answer.Wipe()
}

// TestEveryConsoleAsks: a screen and a serial line; the first answer wins and a key on
// one shows a hidden question on both.
func TestEveryConsoleAsks(t *testing.T) {
	t.Parallel()
	for answering := range 2 {
		rigs := []*rig{newRig(t), newRig(t)}
		before := []unix.Termios{rigs[0].settings(), rigs[1].settings()}
		a := New(Options{Console: rigs[0].console, Consoles: []*Console{rigs[1].console}})
		done := a.Show("waiting")
		p := a.Start(t.Context(), Question{Prompt: keyPrompt, Hidden: true})
		for _, r := range rigs {
			for !r.raw() {
				time.Sleep(time.Millisecond)
			}
		}
		rigs[answering].types("h")
		for _, r := range rigs {
			r.until("status and question", func(screen string) bool { return strings.HasPrefix(screen, "waiting\nPIN of the key") })
		}
		p.SetText("PIN, 9 s")
		for _, r := range rigs {
			r.until("new text", func(screen string) bool { return strings.HasPrefix(screen, "waiting\nPIN, 9 s") })
		}
		rigs[answering].types("unter2\n")
		answer, err := p.Wait()
		if err != nil || texts(answer.Secrets) != "hunter2" {
			t.Errorf("%q, %v", texts(answer.Secrets), err)
		}
		answer.Wipe()
		done()
		a.Note("gone")
		for i, r := range rigs {
			if r.settings() != before[i] {
				t.Errorf("console %d is not as it was", i)
			}
		}
		rigs[1].until("note", func(screen string) bool { return strings.Contains(screen, "gone") })
	}
}

// TestConsolesOfTheKernelAreAllOpened reads lists as /sys/class/tty/console/active
// has them.
func TestConsolesOfTheKernelAreAllOpened(t *testing.T) {
	t.Parallel()
	dev := t.TempDir()
	for _, name := range []string{"tty0", "ttyS0", "console"} {
		_, tty := openPTY(t)
		if err := os.Symlink(tty.Name(), filepath.Join(dev, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		active  string
		primary string
		others  int
	}{
		{"tty0 ttyS0\n", "ttyS0", 1},
		{"ttyS0 tty0\n", "tty0", 1},
		{"ttyS0\n", "console", 0}, // is /dev/console then
		{"", "console", 0},
		{"ttyS9 tty0\n", "tty0", 0},         // no hardware behind it
		{"tty0 ttyS0 hvc0\n", "console", 2}, // no node for it
	} {
		active := write(t, t.TempDir(), "active", c.active, 0o444)
		primary, others, err := openConsoles(active, dev)
		if err != nil || len(others) != c.others {
			t.Fatalf("%q: %d others, %v", c.active, len(others), err)
		}
		want, _ := os.Readlink(filepath.Join(dev, c.primary))
		if got, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", primary.tty.fd)); got != want {
			t.Errorf("%q: the first console is %s, want %s (%s)", c.active, got, c.primary, want)
		}
		o := Options{Console: primary, Consoles: others}
		o.CloseConsoles()
	}
	if _, _, err := openConsoles(filepath.Join(dev, "absent"), filepath.Join(dev, "absent")); err == nil {
		t.Error("no console at all, and no error")
	}
}

func TestQuestionThatNobodyCanSeeEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := New(Options{AgentDir: dir, AgentPatience: 50 * time.Millisecond})
	_, err := a.Ask(t.Context(), keyPrompt)
	if !errors.Is(err, tokens.ErrNoPrompt) || !errors.Is(err, tokens.ErrTimeout) {
		t.Errorf("%v", err)
	}
	empty(t, dir)
	// With a console it stays.
	r := newRig(t)
	a = New(Options{AgentDir: dir, AgentPatience: 50 * time.Millisecond, Console: r.console})
	p := a.Start(t.Context(), Question{Prompt: keyPrompt})
	time.Sleep(200 * time.Millisecond)
	r.types("1234\n")
	answer, err := p.Wait()
	if err != nil {
		t.Error(err)
	}
	answer.Wipe()
}
