// Package askpass gets passphrases, PINs and recovery keys: from files,
// environment variables and credentials that need nobody, from the kernel's
// keyring, and from a person at the console, at a systemd password agent or at
// plymouth. [Asker] is the [tokens.UI] of the commands.
//
// An answer goes straight from the system call into locked memory. Text that was
// typed half belongs to the question it was typed for: when that is withdrawn,
// the text is wiped, and what the terminal still holds is dropped.
package askpass

import (
	"context"
	"time"

	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Options say where answers may come from. The zero value asks nobody.
type Options struct {
	// Prefix names the credentials: "cryptenroll" or "cryptsetup".
	Prefix string
	// PINFile and NewPINFile are --pin-file= and --new-pin-file=; empty for none.
	PINFile, NewPINFile string
	// Environment holds $PIN and the like; nil for none.
	Environment *Environment
	// Headless forbids to ask anybody. The sources above and the keyring remain.
	Headless bool

	// Console asks on a terminal; nil for none. Several Askers may share one.
	Console *Console
	// Consoles are further terminals on which everything is asked as well: a machine
	// with a screen and a serial line. The first answer wins.
	Consoles []*Console
	// AgentDir is where systemd's password agents look for questions, usually
	// [AgentDir]; empty for no agents.
	AgentDir string
	// Plymouth is the address of plymouthd's socket, usually [PlymouthSocket];
	// empty for no plymouth. When plymouth shows a splash it takes the place of
	// the console, for as long as it answers.
	Plymouth string
	// AgentPatience is how long a question is open that only agents can answer,
	// because there is neither console nor plymouth; 0 means no limit.
	AgentPatience time.Duration

	// Shown is called when something is shown that a person has to do, such as to touch
	// a key; nil for nobody.
	Shown func()

	// Instead is what the person can give instead of a PIN, such as "passphrase":
	// the question for a PIN says so, and Enter leads on to it. Empty: nothing, and
	// Enter means that there is no PIN. Nil: nothing, and a PIN has to come.
	Instead func() string
	// IsPassphrase, if not nil, is asked about what a person typed where a PIN was
	// wanted. If it opens the volume itself, IsPassphrase keeps what it needs of it
	// (the secret is borrowed) and returns true: then it is not given to any device.
	IsPassphrase func(ctx context.Context, typed secret.Secret) bool

	// ID and Icon are for agents: "cryptsetup:/dev/disk/by-uuid/…" (see
	// [AgentID]) and "drive-harddisk".
	ID, Icon string
	// Echo is what the console and agents show of the answer.
	Echo Echo
	// Cache says what to do with the keyring.
	Cache CacheMode
	// Skippable makes Enter without an answer, or Esc as the first key, mean that there
	// is none: tokens.ErrCancelled. On the console only.
	Skippable bool
	// OnKey is called for what is typed on the console. May be nil; must not block.
	OnKey func()

	// Reword changes the text of a question for a PIN; nil leaves it.
	Reword func(p *tokens.Prompt) string

	// Messages prints notes and warnings; nil discards them. Put the console
	// below its stream (see cli.Stream.Via) if both are the same terminal.
	Messages *cli.Messages
}

// Asker asks questions about one volume. Its methods may be called from several
// goroutines.
type Asker struct {
	o       Options
	statics statics
	splash  splash
	cache   cache
}

var _ tokens.UI = (*Asker)(nil)

// New returns an Asker. Nothing is opened or asked yet.
func New(o Options) *Asker {
	a := &Asker{o: o, splash: splash{address: o.Plymouth}}
	a.statics = statics{prefix: o.Prefix, file: o.PINFile, newFile: o.NewPINFile, env: o.Environment, warn: a.warn}
	return a
}

// Close wipes what the Asker remembers. The Console and the Environment stay.
func (a *Asker) Close() { a.cache.wipe() }

// Ask implements [tokens.UI]. Of several secrets in one answer, as credentials
// and agents may give, the first counts: the others would cost the device's tries.
func (a *Asker) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	if a.o.Reword != nil {
		p.Text = a.o.Reword(&p)
	}
	answer, err := a.Start(ctx, Question{Prompt: p}).Wait()
	if err != nil {
		return secret.Secret{}, err
	}
	return answer.single(), nil
}

// Show implements [tokens.UI]: a line above the prompt on the console, a message
// of plymouth; a plain line if there is neither.
func (a *Asker) Show(text string) (done func()) {
	if a.o.Shown != nil {
		a.o.Shown()
	}
	undo := []func(){a.splash.show(text)}
	for _, c := range a.consoles() {
		undo = append(undo, c.Show(text))
	}
	if a.o.Console == nil {
		a.print(text)
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}

// consoles are all terminals to ask on.
func (a *Asker) consoles() []*Console {
	if a.o.Console == nil {
		return a.o.Consoles
	}
	return append([]*Console{a.o.Console}, a.o.Consoles...)
}

// Note implements [tokens.UI].
func (a *Asker) Note(text string) {
	a.print(text)
	for _, c := range a.o.Consoles { // the other one is below the messages' stream
		c.note(text)
	}
}

// print prints a line where the messages of the command go.
func (a *Asker) print(text string) {
	if a.o.Messages != nil {
		a.o.Messages.Err.Linef("%s", text)
	}
}

func (a *Asker) warn(text string) {
	if a.o.Messages != nil {
		a.o.Messages.Warning(text)
	}
}

// mute reports whether nobody can be asked at all.
func (a *Asker) mute() bool {
	return a.o.Headless || len(a.consoles()) == 0 && a.o.AgentDir == "" && a.o.Plymouth == ""
}

// automatic looks for an answer where nobody has to be asked.
func (a *Asker) automatic(ctx context.Context, q *Question) (Answer, error) {
	answer, err := a.statics.judge(ctx, q, a.mute())
	if err != nil || answer.Secrets != nil || !q.cacheable(a.o.Cache) {
		return answer, err
	}
	if q.Unread {
		a.cache.forget(q.Keyring)
	}
	list, _ := a.cache.news(q.Keyring)
	return Answer{Secrets: list, Source: FromCache, Name: q.Keyring}, nil
}
