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

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// TestFirstAnswerWins: console and agent are asked at once; the other one is
// withdrawn before the answer is returned.
func TestFirstAnswerWins(t *testing.T) {
	t.Parallel()
	for _, source := range []Source{FromConsole, FromAgent} {
		r, dir := newRig(t), t.TempDir()
		before := r.settings()
		p := New(Options{Console: r.console, AgentDir: dir}).Start(t.Context(), Question{Prompt: pinPrompt})
		_, content := askFile(t, dir)
		r.shows("PIN of the key: (press TAB for no echo)")
		r.types("typed")
		r.shows("*****")
		if source == FromConsole {
			r.types("\n")
		} else {
			reply(t, content, "+typed")
		}
		answer, err := p.Wait()
		if err != nil || texts(answer.Secrets) != "typed" || answer.Source != source {
			t.Errorf("%s: %q from %s, %v", source, texts(answer.Secrets), answer.Source, err)
		}
		answer.Wipe()
		if r.settings() != before {
			t.Errorf("%s: the terminal is not as it was", source)
		}
		empty(t, dir)
		if source == FromAgent {
			r.showsOnly("")
		}
	}
}

// TestGivingUpAnywhereEndsTheQuestion: a person who cancels at one place is not
// asked at the other.
func TestGivingUpAnywhereEndsTheQuestion(t *testing.T) {
	t.Parallel()
	for _, source := range []Source{FromConsole, FromAgent} {
		r, dir := newRig(t), t.TempDir()
		p := New(Options{Console: r.console, AgentDir: dir}).Start(t.Context(), Question{Prompt: pinPrompt})
		_, content := askFile(t, dir)
		r.shows("(press TAB for no echo)")
		if source == FromConsole {
			r.types("\x04")
		} else {
			reply(t, content, "-")
		}
		if _, err := p.Wait(); !errors.Is(err, tokens.ErrCancelled) {
			t.Errorf("%s: %v", source, err)
		}
		empty(t, dir)
	}
}

// TestOneWayFails: the terminal is hung up; the agent still answers.
func TestOneWayFails(t *testing.T) {
	t.Parallel()
	r, dir := newRig(t), t.TempDir()
	p := New(Options{Console: r.console, AgentDir: dir}).Start(t.Context(), Question{Prompt: pinPrompt})
	_, content := askFile(t, dir)
	r.shows("(press TAB for no echo)")
	_ = r.tty.Close()
	_ = r.master.Close()
	time.Sleep(10 * time.Millisecond)
	reply(t, content, "+answer")
	answer, err := p.Wait()
	if err != nil || answer.Source != FromAgent {
		t.Errorf("%+v, %v", answer, err)
	}
	answer.Wipe()
	_, err = ask(t, New(Options{Console: r.console}), pinPrompt)
	if !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("console alone: %v", err)
	}
}

func TestHiddenQuestion(t *testing.T) {
	t.Parallel()
	r, dir := newRig(t), t.TempDir()
	a := New(Options{Console: r.console, AgentDir: dir})
	p := a.Start(t.Context(), Question{Prompt: pinPrompt, Hidden: true})
	for r.raw() == false {
		time.Sleep(time.Millisecond)
	}
	empty(t, dir)
	r.showsOnly("")
	select {
	case <-p.Revealed():
		t.Error("revealed at once")
	case <-p.Done():
		t.Error("done at once")
	default:
	}
	p.Reveal()
	p.Reveal()
	<-p.Revealed()
	askFile(t, dir)
	r.shows("PIN of the key: (press TAB for no echo)")
	r.types("a")
	r.shows(": *")
	p.SetText("PIN of the key, 27 s")
	r.shows("PIN of the key, 27 s: *")
	r.types("b\n")
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "ab" {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()

	p = a.Start(t.Context(), Question{Prompt: pinPrompt, Hidden: true})
	for r.raw() == false {
		time.Sleep(time.Millisecond)
	}
	r.types("k")
	<-p.Revealed()
	_, content := askFile(t, dir)
	reply(t, content, "+x")
	answer, err = p.Wait()
	if err != nil || answer.Source != FromAgent {
		t.Errorf("%v, %v", answer.Source, err)
	}
	answer.Wipe()

	p = a.Start(t.Context(), Question{Prompt: pinPrompt, Hidden: true})
	p.Cancel()
	if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while hidden: %v", err)
	}
	empty(t, dir)
}

func (r *rig) raw() bool { return r.settings().Lflag&2 == 0 }

func TestNewPIN(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	messages, out := recorder()
	a := New(Options{Console: r.console, Messages: messages})
	p := a.Start(t.Context(), Question{Prompt: tokens.Prompt{Text: "New PIN", Credential: "tpm2-pin", New: true}})
	for _, step := range []struct{ shows, types string }{
		{"New PIN: (press TAB for no echo)", "1234\n"},
		{"New PIN (repeat): (press TAB for no echo)", "1235\n"},
		{"New PIN (repeat):\nNew PIN: (press TAB for no echo)", "295141\n"},
		{"New PIN (repeat): (press TAB for no echo)", "295141\n"},
	} {
		r.shows(step.shows)
		r.types(step.types)
	}
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "295141" {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
	if want := "This PIN may be weak (about 7 bits). Better: six digits without a pattern, or letters too.\nThe two answers differ, please try again.\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestNewPassphraseIsCancelledAtTheRepetition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := New(Options{Console: r.console})
	go func() {
		r.shows("Please enter new passphrase for disk /dev/x: (press TAB for no echo)")
		r.types("one\n")
		r.shows("(repeat): (press TAB for no echo)")
		r.types("\x04")
	}()
	if _, err := a.NewPassphrase(t.Context(), "/dev/x"); !errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("%v", err)
	}
}

// TestVerify is crypttab's verify, through an agent: the second question has an
// Id of its own.
func TestVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := New(Options{AgentDir: dir, ID: AgentID("/dev/x")})
	q := PassphraseQuestion{Kind: PassphraseOrRecoveryKey, Disk: "X (home)", Verify: true}.Question()
	p := a.Start(t.Context(), q)
	for _, step := range []struct{ message, id, reply string }{
		{"Please enter passphrase or recovery key for disk X (home):", "cryptsetup:/dev/x", "one"},
		{"Please enter passphrase or recovery key for disk X (home) (verification):", "cryptsetup-verification:/dev/x", "other"},
		{"Please enter passphrase or recovery key for disk X (home):", "cryptsetup:/dev/x", "two"},
		{"Please enter passphrase or recovery key for disk X (home) (verification):", "cryptsetup-verification:/dev/x", "two"},
	} {
		path, content := askFile(t, dir)
		if member(content, "Message") != step.message || member(content, "Id") != step.id {
			t.Errorf("%s", content)
		}
		reply(t, content, "+"+step.reply)
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if list, _ := filepath.Glob(path); len(list) == 0 {
				break
			}
		}
	}
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "two" {
		t.Errorf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
}

// TestGoldenPrompts is what a person reads before typing.
func TestGoldenPrompts(t *testing.T) {
	t.Parallel()
	tries := func(n int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return n, nil }
	}
	for _, c := range []struct {
		q    Question
		want string
	}{
		{Question{Prompt: tokens.Prompt{Text: "PIN of YubiKey 5C (label home)", Credential: "fido2-pin", Tries: tries(8)}},
			"PIN of YubiKey 5C (label home), 8 tries left:"},
		{Question{Prompt: tokens.Prompt{Text: "PIN of YubiKey 5C", Credential: "fido2-pin", TriesLeft: 3, Attempt: 2}},
			"Wrong PIN, please try again.\nPIN of YubiKey 5C, 3 tries left:"},
		{Question{Prompt: tokens.Prompt{Text: "PIN of the TPM", Credential: "tpm2-pin", Tries: tries(1), Attempt: 1}},
			"Wrong PIN, please try again.\nThis is the last try before the device locks itself.\nPIN of the TPM, last try:"},
		{PassphraseQuestion{Kind: Passphrase, Disk: "Samsung on /home"}.Question(),
			"Please enter passphrase for disk Samsung on /home:"},
		{PassphraseQuestion{Kind: PassphraseOrRecoveryKey, Disk: "x", Attempt: 1}.Question(),
			"Wrong passphrase or recovery key, please try again.\nPlease enter passphrase or recovery key for disk x:"},
		{PassphraseQuestion{Kind: RecoveryKey, Disk: "/dev/sda2", Current: true}.Question(),
			"Please enter current recovery key for disk /dev/sda2:"},
		{Question{Prompt: tokens.Prompt{Text: "PIN of \x1b[2Jkey\u202e", Credential: "x-pin"}},
			`PIN of \x1b[2Jkey\u202e:`},
	} {
		r := newRig(t)
		p := New(Options{Console: r.console}).Start(t.Context(), c.q)
		r.showsOnly(c.want + " (press TAB for no echo)")
		p.Cancel()
		if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// TestColourAndSymbol are the bytes that a terminal gets.
func TestColourAndSymbol(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.console.screen.colour, r.console.screen.emoji = true, true
	a := r.ask(t.Context(), shown("PIN", EchoMasked))
	r.shows("echo)")
	r.types("a\n")
	a.want("a")
	const want = "\x1b[1m🔐 PIN: \x1b[0m\x1b[2m(press TAB for no echo) \x1b[0m"
	if !strings.HasPrefix(r.output(), want) {
		t.Errorf("%q, want %q", r.output(), want)
	}
}

// TestLockedDeviceIsNotAskedFor: Tries says that the device is locked.
func TestLockedDeviceIsNotAskedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := pinPrompt
	p.Tries = func(context.Context) (int, error) { return 0, fmt.Errorf("TPM: %w", tokens.ErrLocked) }
	if _, err := ask(t, New(Options{Console: r.console}), p); !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("%v", err)
	}
	r.showsOnly("")
	called := false
	p.Tries = func(context.Context) (int, error) { called = true; return 1, nil }
	if got, err := ask(t, New(Options{Environment: fakeEnvironment("PIN", "x"), Console: r.console}), p); err != nil || got != "x" || called {
		t.Errorf("%q, %v, device asked: %v", got, err, called)
	}
}

func TestEndedContexts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := New(Options{Console: r.console})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Ask(cancelled, pinPrompt); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	late, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Ask(late, pinPrompt); !errors.Is(err, context.DeadlineExceeded) || cli.ExitStatus(err) != cli.ExitTimedOut {
		t.Errorf("%v", err)
	}
	why := errors.New("another token")
	caused, withCause := context.WithCancelCause(t.Context())
	withCause(why)
	if _, err := a.Ask(caused, pinPrompt); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for keys, want := range map[string]bool{"y\n": true, " YES \n": true, "\n": false, "n\n": false, "yesno\n": false} {
		r := newRig(t)
		go func() {
			r.shows("Wipe slot 0? [y/N]:")
			r.types(keys)
		}()
		if got, err := New(Options{Console: r.console}).Confirm(t.Context(), "Wipe slot 0?"); err != nil || got != want {
			t.Errorf("%q: %v, %v", keys, got, err)
		}
	}
	if _, err := New(Options{}).Confirm(t.Context(), "x"); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("without a console: %v", err)
	}
	r := newRig(t)
	go func() {
		r.shows("x [y/N]:")
		r.types("\x03")
	}()
	if _, err := New(Options{Console: r.console}).Confirm(t.Context(), "x"); !errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("%v", err)
	}
}

func TestShowAndNoteWithoutTerminal(t *testing.T) {
	t.Parallel()
	messages, out := recorder()
	a := New(Options{Messages: messages})
	done := a.Show("Touch the key\x1b")
	a.Note("one")
	done()
	done()
	if want := "Touch the key\\x1b\none\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	quiet := New(Options{})
	quiet.Show("x")()
	quiet.Note("x")
}

func TestMessagesGoAroundThePrompt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	messages, _ := recorder()
	messages.Err.Via(r.console)
	a := New(Options{Console: r.console, Messages: messages})
	p := a.Start(t.Context(), Question{Prompt: pinPrompt})
	r.shows("echo)")
	r.types("ab")
	a.Note("noted")
	messages.Error(fmt.Errorf("token 1: %w", tokens.ErrNoDevice))
	done := a.Show("Touch the key")
	r.showsOnly("noted\nx: error: token 1: security device not present\nx: hint: plug the security device in and try again\n" +
		"Touch the key\nPIN of the key: **")
	done()
	p.Cancel()
	_, _ = p.Wait()
	r.shows("try again\n")
}

// TestFreshQuestionsSkipWhatIsKnown: the caller has tried the credential, so that a
// person is asked.
func TestFreshQuestionsSkipWhatIsKnown(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cryptsetup.passphrase"), []byte("known"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	a := New(Options{Prefix: "cryptsetup"})
	q := PassphraseQuestion{Kind: Passphrase, Disk: "d", Fresh: true}
	if answer, err := a.Passphrase(t.Context(), q); !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("%v, %v", answer, err)
	}
	q.Fresh = false
	answer, err := a.Passphrase(t.Context(), q)
	if err != nil || answer.Source != FromCredential {
		t.Errorf("%v, %v", answer, err)
	}
	answer.Wipe()
}
