package tokentest

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// UI is a person with a script. It answers questions in order, remembers what it
// was asked and shown, and fails the test when a question is not in the script,
// when an answer is left over at the end, when a line of Show is never taken
// away, or when an answer was not wiped by the one who got it. Its methods may be
// called by several goroutines.
type UI struct {
	t testing.TB

	mu      sync.Mutex
	answers []Answer
	prompts []tokens.Prompt
	given   []secret.Secret
	shown   []string
	open    int
	notes   []string
}

var _ tokens.UI = (*UI)(nil)

// Answer is what happens at one question. The zero value is an empty answer.
type Answer struct {
	Text string // typed text
	Err  error  // returned instead of the text: tokens.ErrCancelled
	// Before runs when the question comes, before the answer: it may cancel a
	// context or pull a device out.
	Before func(tokens.Prompt)
	// Tries calls Prompt.Tries first, as a UI does when a person is asked and no
	// credential has the answer. The number is put into the recorded prompt; an
	// error ends the question.
	Tries bool
	// Wait answers nothing until the context ends, and then with its error.
	Wait bool
}

// NewUI returns a UI with a script.
func NewUI(t testing.TB, script ...Answer) *UI {
	u := &UI{t: t, answers: script}
	t.Cleanup(u.check)
	return u
}

// Typed is a script that only types texts.
func Typed(texts ...string) []Answer {
	script := make([]Answer, len(texts))
	for i, text := range texts {
		script[i].Text = text
	}
	return script
}

// credentialName is what systemd allows in the name of a credential, in the form
// that this project uses.
var credentialName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// Ask gives the next answer of the script. The caller wipes it.
func (u *UI) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	u.t.Helper()
	if err := ctx.Err(); err != nil {
		return secret.Secret{}, err
	}
	answer, ok := u.next(p)
	if !ok {
		u.t.Errorf("unexpected question %q (attempt %d)", p.Text, p.Attempt)
		return secret.Secret{}, tokens.ErrNoPrompt
	}
	if answer.Tries && p.Tries != nil {
		n, err := p.Tries(ctx)
		if err != nil {
			return secret.Secret{}, err
		}
		u.foundTries(n)
	}
	if answer.Before != nil {
		answer.Before(p)
	}
	if answer.Wait {
		<-ctx.Done()
		return secret.Secret{}, ctx.Err()
	}
	if answer.Err != nil {
		return secret.Secret{}, answer.Err
	}
	s := secret.Copy([]byte(answer.Text))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.given = append(u.given, s)
	return s, nil
}

// next records the question and takes its answer from the script.
func (u *UI) next(p tokens.Prompt) (Answer, bool) {
	u.t.Helper()
	if p.Text == "" || strings.TrimRight(p.Text, ": ") != p.Text {
		u.t.Errorf("the question %q is empty or ends in a colon or space, which the UI adds", p.Text)
	}
	if p.Credential != "" && !credentialName.MatchString(p.Credential) {
		u.t.Errorf("%q is not a name of a credential", p.Credential)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.prompts = append(u.prompts, p)
	if len(u.answers) == 0 {
		return Answer{}, false
	}
	answer := u.answers[0]
	u.answers = u.answers[1:]
	return answer, true
}

// foundTries completes the prompt that was recorded last.
func (u *UI) foundTries(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.prompts[len(u.prompts)-1].TriesLeft = n
}

// Show records a line.
func (u *UI) Show(text string) (done func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.shown = append(u.shown, text)
	u.open++
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.open--
	})
}

// Note records a line.
func (u *UI) Note(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notes = append(u.notes, text)
}

// Prompts are the questions asked so far.
func (u *UI) Prompts() []tokens.Prompt {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.prompts)
}

// Shown are the lines of Show so far, those taken away included.
func (u *UI) Shown() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.shown)
}

// Notes are the lines of Note so far.
func (u *UI) Notes() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.notes)
}

// check runs at the end of the test.
func (u *UI) check() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := len(u.answers); n > 0 {
		u.t.Errorf("%d questions of the script were not asked", n)
	}
	if u.open > 0 {
		u.t.Errorf("%d lines of Show were not taken away: %q", u.open, u.shown)
	}
	for i, s := range u.given {
		if s.Len() != 0 {
			u.t.Errorf("answer %d was not wiped", i)
		}
	}
}
