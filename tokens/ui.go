package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/luks2/secret"
)

// UI is how handlers talk to people. internal/askpass implements it for the
// commands, tokentest for tests.
type UI interface {
	// Ask gets one secret. Sources that need nobody (environment, credentials,
	// --pin-file) come first and only when p.Attempt is 0 and p.Person is not set.
	// Errors: [ErrCancelled] when the person declined, also in favour of a
	// passphrase ([ErrSkipped]); [ErrNoPrompt] when nobody may be asked and no other
	// source has it; the error of ctx.
	Ask(ctx context.Context, p Prompt) (secret.Secret, error)
	// Show displays a line, such as a request to touch a key, until the returned
	// function is called. It never blocks.
	Show(text string) (done func())
	// Note prints a line that stays.
	Note(text string)
}

// Nobody is a UI without people: it answers no question and shows nothing.
type Nobody struct{}

// Ask implements [UI].
func (Nobody) Ask(context.Context, Prompt) (secret.Secret, error) {
	return secret.Secret{}, ErrNoPrompt
}

// Show implements [UI].
func (Nobody) Show(string) (done func()) { return func() {} }

// Note implements [UI].
func (Nobody) Note(string) {}

// Prompt is one question.
type Prompt struct {
	// Text is the question without colon: "PIN of YubiKey 5C (label home)". The
	// UI escapes what does not belong on a terminal.
	Text string
	// Credential names the sources besides the keyboard. "tpm2-pin" means the
	// credentials cryptenroll.tpm2-pin or cryptsetup.tpm2-pin, and for every name
	// that ends in "-pin" also $PIN and --pin-file=. With New set it is
	// new-tpm2-pin, $NEWPIN and --new-pin-file=.
	Credential string
	// New asks twice on a terminal, until both answers agree, and hints at the
	// strength.
	New bool
	// TriesLeft is what the device allows before it locks, if it told: shown
	// before the answer is given, with a warning at 1. 0 means unknown.
	TriesLeft int
	// Tries, if not nil, finds out TriesLeft. It costs a command to the device,
	// so the UI calls it once a person is about to be asked, and not when another
	// source has the answer. Its error, such as [ErrLocked], ends Ask and is
	// returned by it.
	Tries func(ctx context.Context) (int, error)
	// Attempt counts the questions for the same secret in this run, from 0. Above
	// 0 the UI says that the previous answer was wrong.
	Attempt int
	// Person leaves out the sources that need nobody: the last tries of a device are
	// not used up by them.
	Person bool
	// Unread says that the device did not look at the last answer to this question:
	// a source that gave it may give it again.
	Unread bool
	// Check, if not nil, says why a text cannot be what is asked for, whatever the
	// device holds: it is too long for a PIN. The UI asks a person again then.
	Check func(answer secret.Secret) error
	// Keyring is the description under which systemd's agents cache the answer in
	// the kernel keyring ("tpm2-pin"); empty: never cached.
	Keyring string
}

// presencePoll is how often AskWhile looks for the device.
const presencePoll = 500 * time.Millisecond

// errGone ends a question whose device was unplugged.
var errGone = errors.New("it was unplugged")

// AskWhile is ui.Ask for as long as present reports that the security device is
// there. When it is not any more the question goes, and the error is [ErrNoDevice].
// An error of present means that there is no telling; then the question stays.
// present is called from another goroutine, but never after AskWhile has returned.
func AskWhile(ctx context.Context, ui UI, p Prompt, present func(context.Context) (bool, error)) (secret.Secret, error) {
	asking, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if watchPresence(asking, present) {
			stop(errGone)
		}
	}()
	answer, err := ui.Ask(asking, p)
	stop(nil)
	<-watched
	if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(asking), errGone) {
		return answer, err
	}
	answer.Wipe()
	return secret.Secret{}, fmt.Errorf("%w: %w", ErrNoDevice, errGone)
}

// watchPresence returns true when the device is gone, false when ctx ends or there
// is no telling.
func watchPresence(ctx context.Context, present func(context.Context) (bool, error)) (gone bool) {
	tick := time.NewTicker(presencePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		there, err := present(ctx)
		if ctx.Err() != nil || err != nil {
			return false
		}
		if !there {
			return true
		}
	}
}
