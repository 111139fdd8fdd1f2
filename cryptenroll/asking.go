package main

import (
	"context"
	"time"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// asking is where answers come from in one run: files, variables and credentials,
// and a person.
type asking struct {
	pinFile, newPINFile string
	headless            bool // ask nobody
	cache               askpass.CacheMode
	reword              func(p *tokens.Prompt) string
	terminalOnly        bool // ask nobody but a person at the terminal
	environment         *askpass.Environment
	msg                 *cli.Messages
	shown               func() // is told that a person has to do something; nil for nobody
	offer               *offer // nil while nothing can be given in place of a PIN

	console     *askpass.Console
	interactive *askpass.Asker // made when first needed
}

// close restores the terminal.
func (a *asking) close() {
	if a.console != nil {
		a.console.Close()
	}
}

// asker asks the person at the terminal, or a password agent in a service. It is
// the UI of handlers too.
func (a *asking) asker() *askpass.Asker {
	if a.interactive == nil {
		o := a.options()
		if a.headless {
			o.Headless = true
		} else {
			o.ForUser()
			if a.terminalOnly {
				o.AgentDir = ""
			}
			a.console = o.Console
			if a.console != nil && a.msg.Err.Terminal { // else a log or program gets the messages
				a.msg.Err.Via(a.console)
			}
		}
		a.interactive = askpass.New(o)
	}
	return a.interactive
}

// show has a line at the terminal that says why nothing happens, until done is called.
// Elsewhere nobody waits.
func (a *asking) show(text string) (done func()) {
	if !a.msg.Err.Terminal {
		return func() {}
	}
	if a.asker(); a.console != nil {
		return a.console.Show(text)
	}
	a.msg.Plain(cli.LevelNotice, "%s", text)
	return func() {}
}

// quietTime is how long something may take without a word.
const quietTime = time.Second

// meanwhile is show for what takes longer than a moment.
func (a *asking) meanwhile(text string) (done func()) {
	if !a.msg.Err.Terminal {
		return func() {}
	}
	a.asker() // is made here, not beside
	shown := make(chan func(), 1)
	timer := time.AfterFunc(quietTime, func() { shown <- a.show(text) })
	return func() {
		if !timer.Stop() {
			(<-shown)()
		}
	}
}

// static only looks at environment and credentials.
func (a *asking) static() *askpass.Asker {
	o := a.options()
	o.Headless = true
	return askpass.New(o)
}

func (a *asking) options() askpass.Options {
	return askpass.Options{
		Prefix: "cryptenroll", PINFile: a.pinFile, NewPINFile: a.newPINFile,
		Environment: a.environment, Messages: a.msg, Shown: a.shown, Cache: a.cache, Reword: a.reword, Icon: "drive-harddisk",
		Instead: a.instead, IsPassphrase: a.isPassphrase,
	}
}

// offer is what may be given where a PIN is asked for.
type offer struct {
	noun  askpass.Kind
	opens func(ctx context.Context, typed secret.Secret) bool // keeps the key
}

// instead names what a person can give in place of a PIN, "" for nothing.
func (a *asking) instead() string {
	if a.offer == nil {
		return ""
	}
	return string(a.offer.noun)
}

// isPassphrase reports whether what was typed for a PIN opens the volume by itself.
func (a *asking) isPassphrase(ctx context.Context, typed secret.Secret) bool {
	return a.offer != nil && a.offer.opens(ctx, typed)
}
