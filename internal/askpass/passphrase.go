package askpass

import (
	"context"
	"strings"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// passphraseCredential names the sources of what opens a volume.
const passphraseCredential = "passphrase"

// Kind is what opens the keyslots of a volume that a person can be asked for.
// The values are systemd's words.
type Kind string

// The kinds.
const (
	Passphrase              Kind = "passphrase"
	RecoveryKey             Kind = "recovery key"
	PassphraseOrRecoveryKey Kind = "passphrase or recovery key"
)

// PassphraseQuestion asks for something that opens a volume.
type PassphraseQuestion struct {
	Kind Kind
	// Disk is the volume in words: "Samsung SSD (home) on /home".
	Disk string
	// Current asks for the "current" one: another is about to be set.
	Current bool
	// Attempt, Verify, Hidden and Fresh are those of Question.
	Attempt               int
	Verify, Hidden, Fresh bool
	// Keyring is the description of cached answers: "cryptsetup"; empty: none.
	Keyring string
}

// Question is the question in systemd's words, to be started with [Asker.Start].
func (p PassphraseQuestion) Question() Question {
	noun := string(p.Kind)
	what := noun
	if p.Current {
		what = "current " + noun
	}
	return Question{
		Prompt: tokens.Prompt{
			Text:       "Please enter " + what + " for disk " + p.Disk,
			Credential: passphraseCredential,
			Attempt:    p.Attempt,
			Keyring:    p.Keyring,
		},
		Verify: p.Verify,
		Hidden: p.Hidden,
		Fresh:  p.Fresh,
		noun:   noun,
	}
}

// Passphrase asks and waits. The caller wipes the answer.
func (a *Asker) Passphrase(ctx context.Context, q PassphraseQuestion) (Answer, error) {
	return a.Start(ctx, q.Question()).Wait()
}

// NewPassphrase asks for a passphrase to be enrolled: twice, with a remark if it
// seems weak. The caller wipes it.
func (a *Asker) NewPassphrase(ctx context.Context, disk string) (secret.Secret, error) {
	return a.Ask(ctx, tokens.Prompt{Text: "Please enter new passphrase for disk " + disk, Credential: passphraseCredential, New: true})
}

// Confirm asks a yes-or-no question on the console; only "y" or "yes" is a yes.
// Errors are those of [tokens.UI.Ask]; [tokens.ErrNoPrompt] without a console.
func (a *Asker) Confirm(ctx context.Context, text string) (bool, error) {
	if a.o.Console == nil || a.o.Headless {
		return false, &noPrompt{what: text}
	}
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	shown := newGate()
	shown.open()
	line := newPrompt(EchoText, shown)
	line.text = text + " [y/N]"
	s, err := a.o.Console.ask(ctx, line)
	if err != nil {
		return false, err
	}
	defer s.Wipe()
	answer := strings.ToLower(strings.TrimSpace(secret.UnsafeString(s)))
	return answer == "y" || answer == "yes", nil
}
