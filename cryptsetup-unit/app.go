package main

import (
	"context"
	"os"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/tokens"
	"luksmith/tokens/all"
	"luksmith/tokens/tpm2"
)

// app is what one run of the command has.
type app struct {
	ctx    context.Context
	msg    *cli.Messages
	out    *cli.Stream
	advice []string // about memory protection, for commands that handle secrets
	// inMemory reports whether a file lies in a file system without a disk.
	inMemory func(path string) bool
	// root is in front of all paths of the system, for tests.
	root string
	// types makes the token types anew, for one volume or one look at crypttab.
	types    func() tokens.Set
	mappings mappings
	manner   manner
}

func newApp(ctx context.Context, msg *cli.Messages) *app {
	return &app{inMemory: onRAM, ctx: ctx, msg: msg, out: cli.NewStream(os.Stdout), types: all.New, manner: mannerOf(msg.Name), mappings: mappings{dmcrypt.Names, dmcrypt.Status}}
}

// grammar has the options of crypttab, with those of every token type.
func (a *app) grammar() crypttab.Grammar { return a.types().Grammar() }

// newDevices finds devices on this machine.
func (a *app) newDevices() *devices {
	return &devices{resolve: resolveDevice, watch: watchUevents, ui: askpass.New(askpass.Options{Messages: a.msg})}
}

// newAttacher prepares a run for some volumes. Close it.
func (a *app) newAttacher(jobs []*job) (*attacher, error) {
	for _, text := range a.advice {
		a.msg.Warning(text)
	}
	w := luks2.NewWorkspace()
	as := &attacher{app: a, mount: mountKeyDevice, newHandlers: a.types, patience: contest.Patience, grace: optionalGrace, workspace: w, pool: newPool(w.Hold),
		measure: measureVolumeKey, mapper: mapper{dmcrypt.Status, dmcrypt.Attach, dmcrypt.CheckKernel}}
	as.asking = askpass.Options{Prefix: "cryptsetup", Messages: a.msg, Environment: askpass.TakeEnvironment("PIN")}
	latched, ask := 0, false
	for _, j := range jobs {
		if j.options.Latch {
			latched++
		}
		ask = ask || !j.options.Headless
	}
	as.latch = newLatch(latched)
	if ask {
		if err := as.asking.ForBoot(); err != nil {
			a.msg.Warning(err.Error()) // agents remain
		}
	}
	if as.asking.Console != nil && a.msg.Err.Terminal {
		a.msg.Err.Via(as.asking.Console)
	}
	as.devices = a.newDevices()
	as.devices.ui = askpass.New(as.asking)
	return as, nil
}

// close gives back the console and wipes what the volumes shared.
func (as *attacher) close() {
	if as.asking.Console != nil {
		if as.msg.Err.Terminal {
			as.msg.Err.Via(os.Stderr)
		}
		as.asking.CloseConsoles()
	}
	as.asking.Environment.Close()
	as.pool.wipe()
}

func measureVolumeKey(ctx context.Context, h *tpm2.Handler, req *tpm2.MeasureRequest) (*tpm2.Measured, error) {
	return h.MeasureVolumeKey(ctx, req)
}
