package tokens

import (
	"context"

	"luksmith/luks2/secret"
)

// UI is how handlers talk to people. internal/askpass implements it for the
// commands, tokentest for tests.
type UI interface {
	// Ask gets one secret. Sources that need nobody (environment, credentials,
	// --pin-file) come first and only when p.Attempt is 0. Errors: [ErrCancelled]
	// when the person declined, [ErrNoPrompt] when nobody may be asked and no
	// other source has it, the error of ctx.
	Ask(ctx context.Context, p Prompt) (secret.Secret, error)
	// Show displays a line, such as a request to touch a key, until the returned
	// function is called. It never blocks.
	Show(text string) (done func())
	// Note prints a line that stays.
	Note(text string)
}

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
	// Keyring is the description under which systemd's agents cache the answer in
	// the kernel keyring ("tpm2-pin"); empty: never cached.
	Keyring string
}
