// Command cryptenroll lists, enrols, tests, labels and wipes what can unlock a
// LUKS2 volume. See cryptenroll(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/forecast"
	"luksmith/internal/version"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/all"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain/chain"
)

func main() { os.Exit(run(os.Args)) }

// run is main with the exit status as its result, so that deferred wiping and the
// restoring of the terminal happen before the process ends.
func run(args []string) int { return runWith(args, all.New) }

// runWith is run with these token types.
func runWith(args []string, types func() tokens.Set) int {
	a := newApp(filepath.Base(args[0]), types)
	a.call = args[1:]
	advice, err := cli.Protect()
	if err != nil {
		a.msg.Error(err)
		return cli.ExitFailure
	}
	a.advice = advice
	if served, err := serveVarlink(types, args); served {
		a.msg.Error(err)
		return cli.ExitStatusAs(args[0], err)
	}
	a.environment = askpass.TakeEnvironment("PASSWORD", "NEWPASSWORD", "PIN", "NEWPIN")
	defer a.environment.Close()
	defer a.close()

	root := a.rootCommand(args[1:])
	words, err := a.manner.expand(root.Flags(), args[1:])
	if err == nil {
		err = a.manner.refuseAmbiguous(words)
	}
	if err == nil {
		root.SetArgs(words)
		err = root.ExecuteContext(luks2.WithLockWait(context.Background(), luks2.LockWait{Notice: a.tellLock, Limit: maxLockWait}))
	}
	status := cli.ExitStatusAs(args[0], err, slices.Concat(doctorExits, followExits, ensureExits)...)
	err = cli.ForDevice(err, a.words)
	a.msg.Error(err)
	if err != nil && a.manner.explainsInJSON() && !a.out.HasDocument() {
		a.out.JSONError(a.jsonMode(args[1:]), status, err)
	}
	return status
}

// maxLockWait is far more than any program needs for a header.
const maxLockWait = 2 * time.Minute

// tellLock says at a terminal why nothing happens.
func (a *app) tellLock(what string) (done func()) {
	return a.asking().show("Waiting for another program, which has " + what + " locked.")
}

// app is one run of the command: its options, the table of its verbs, and what it
// prints. What opens a volume is an [unlocker], what decides a [planner], what
// changes it an [executor].
type app struct {
	name   string   // as called
	call   []string // the words behind it
	manner manner   // that of the name
	out    *cli.Stream
	msg    *cli.Messages
	advice []string

	types func() tokens.Set // new handlers of every type
	// Handlers of the token to be made and of those that unlock are separate
	// values, because an option may have another meaning in each place.
	enrolling, unlocking tokens.Set

	environment *askpass.Environment
	person      *asking // made when first needed
	tree        blockTree
	root        string // of the file system whose crypttab and initrd are meant
	words       string // name the volume of this run on a command line; empty for none or several

	options options
}

func newApp(name string, types func() tokens.Set) *app {
	a := &app{
		name: name, manner: mannerOf(name),
		out:   cli.NewStream(os.Stdout),
		msg:   &cli.Messages{Name: name, Err: cli.NewStream(os.Stderr)},
		types: types, enrolling: types(), unlocking: types(),
		tree: hostTree, root: "/",
		options: options{unlock: unlockOptions{slotName: anySlot()}, compat: "auto"},
	}
	for _, set := range []tokens.Set{a.enrolling, a.unlocking} {
		if h := handlerOf[*tpm2.Handler](set); h != nil {
			h.EntryTitle = func(id string) string { return forecast.EntryTitle(a.root, id) }
			h.RememberedKeys = func(v tokens.Volume) [][]byte { return rememberedKeys(a.root, v) }
		}
	}
	if h := a.tpm2(); h != nil {
		h.AtUnlock = func(uuid string, pcrs []int) map[int][]byte {
			return forecast.AtUnlock(a.root, uuid, pcrs, func() (map[int][]byte, error) { return h.PresentPCRs(context.Background(), chain.Predictable()) })
		}
	}
	a.manner.prepare(a.msg)
	return a
}

// close restores the terminal.
func (a *app) close() {
	if a.person != nil {
		a.person.close()
	}
}

// asking is who can be asked, once the options are known.
func (a *app) asking() *asking {
	if a.person == nil {
		o := &a.options
		a.person = &asking{pinFile: o.pinFile, newPINFile: o.newPINFile, headless: o.unlock.headless, environment: a.environment, msg: a.msg, cache: a.manner.keyring(), reword: a.manner.question}
	}
	return a.person
}

// unlocker opens volumes by the way that the options name.
func (a *app) unlocker() *unlocker {
	return &unlocker{how: a.options.unlock, types: a.unlocking, person: a.asking(),
		warn: func(err error) { a.msg.WarnError(cli.ForDevice(err, a.words)) }}
}

// rootCommand has those verbs that the words of the call may mean.
func (a *app) rootCommand(words []string) *cobra.Command {
	var sections []section
	if len(words) == 0 || !isVerb(words[0]) { // which has its own options, and none before it
		sections = a.rootSections(words)
	}
	root := a.command("[DEVICE]", "Enrol, list, test and wipe what unlocks a LUKS2 volume", sections,
		func(cmd *cobra.Command, args []string) error { return a.runRoot(cmd.Context(), cmd.Flags(), args) })
	root.Use = a.name
	root.Long = "Without an option that enrols or wipes, the keyslots of DEVICE are listed.\n" +
		"Without DEVICE, the volume below /var, or else /, is meant."
	root.Example = examples
	root.Args = cobra.ArbitraryArgs
	root.ValidArgsFunction = completeFile // besides the commands
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	root.SetOut(a.out)
	if completes(words) { // what a shell reads stands behind tabs
		root.SetOut(a.out.Raw())
	}
	if len(words) > 0 && words[0] == "completion" {
		root.SetOut(completionScript{a.out.Raw()})
	}
	root.SetErr(a.msg.Err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.CompletionOptions.DisableDefaultCmd = !slices.ContainsFunc(words, asksForVerbs)
	root.AddCommand(a.manner.verbs(a, words)...)
	return root
}

// runRoot decides between listing devices, listing keyslots and changing them.
func (a *app) runRoot(ctx context.Context, flags *pflag.FlagSet, args []string) error {
	o := &a.options
	switch {
	case o.version:
		if o.json.On() {
			return a.out.JSON(o.json, map[string]any{"version": version.Version, "systemd": newestSystemd})
		}
		_, err := fmt.Fprint(a.out, a.manner.version())
		return err
	case o.listDevicesOf != nil:
		return interruptibly(ctx, func(ctx context.Context) error { return a.listSecurityDevices(ctx, o.listDevicesOf) })
	case o.listDevices:
		return a.listBlockDevices(ctx)
	}
	enrolls, err := o.enrollsAnything()
	if err != nil {
		return err
	}
	if !a.manner.mayOnlyList() {
		if err := o.refuseIdle(flags); err != nil {
			return err
		}
	}
	devices, err := a.devices(args)
	if err != nil {
		return err
	}
	if !enrolls && len(o.wipe) == 0 {
		if err := a.manner.refuseCommand(args); err != nil {
			return err
		}
		return a.list(ctx, devices[0])
	}
	return interruptibly(ctx, func(ctx context.Context) error { return a.change(ctx, devices) })
}

// jsonMode is what --json= asked for, also where an error before it kept it from being
// read.
func (a *app) jsonMode(words []string) cli.JSONMode {
	mode := a.options.json
	for _, w := range words {
		if value, ok := strings.CutPrefix(w, "--json="); ok && !mode.On() {
			_ = mode.Set(value)
		}
	}
	return mode
}

// examples are those of --help.
const examples = `  cryptenroll /dev/sda3
  cryptenroll --recovery-key /dev/sda3
  cryptenroll --tpm2-device=auto --tpm2-pcrs=7 --tpm2-with-pin=yes /dev/sda3
  cryptenroll --fido2-device=auto --label=keyring /dev/sda3
  cryptenroll --wipe-slot=old-laptop /dev/sda3
  cryptenroll test --all /dev/sda3`

// interruptibly has signals end the context of what takes time, asks or writes. What
// only reads and prints goes without: taking the signals costs as much as listing a
// volume.
func interruptibly(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := cli.WithSignals(ctx)
	defer stop()
	err := do(ctx)
	if _, said := errors.AsType[*final](err); !said && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx) // names the signal
	}
	return err
}

// devices are the arguments, the image of --image=, or the volume behind /var or /
// without any of them.
func (a *app) devices(args []string) ([]string, error) {
	if image := &a.options.image; image.given() {
		if len(args) > 0 {
			return nil, usagef("%q: --image= names the volume already", args)
		}
		return []string{image.file}, nil
	}
	if slices.Contains(args, "") {
		return nil, usagef("the name of the device is empty")
	}
	if len(args) > 0 {
		return args, nil
	}
	dev, err := a.tree.defaultDevice()
	if err != nil {
		return nil, tokens.WithHint(err, "name one of the volumes that there are: "+a.name+" --list-devices")
	}
	return []string{dev}, nil
}
