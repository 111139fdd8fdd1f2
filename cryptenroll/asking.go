package main

import (
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
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
			if a.console != nil {
				a.msg.Err.Via(a.console)
			}
		}
		a.interactive = askpass.New(o)
	}
	return a.interactive
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
	}
}
