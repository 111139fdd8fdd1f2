// Command cryptsetup-unit attaches the encrypted volumes of crypttab at boot, with
// or without systemd and udev: see cryptsetup-unit(8).
//
// Where things are:
//
//	main, flags, help      the command line; cmd_NAME has the command NAME
//	job, foreign           one volume as crypttab or the arguments describe it; modes that are left to cryptsetup
//	generator, bootswitch  what the packages' hooks do before the distribution's own program
//	attach                 one volume on its way: find, unlock, identify, activate
//	wait, devref, uevent   block devices: waiting, looking up tags, the kernel's events
//	volume, header         what the LUKS header says, and where it is
//	ways, tokentypes       which ways to a key there are, in which order; internal/contest runs them side by side
//	way_NAME, pool         one kind of way each
//	keyfile, keysocket, keydev   key files: reading, servers, file systems on other devices
//	identify, latch        what is done with the volume key before it is used
//	activate               the mapping
//	report                 /run/luksmith/NAME.json
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/internal/cli"
)

func main() { os.Exit(run(os.Args)) }

// run is main with its arguments and exit status in the open.
func run(argv []string) int {
	msg := &cli.Messages{Name: filepath.Base(argv[0]), Err: cli.NewStream(os.Stderr)}
	advice, err := cli.Protect()
	if err == nil {
		a := newApp(context.Background(), msg)
		a.advice = advice
		if err = cli.ExplainDenial(a.run(argv[1:]), msg.Name, argv[1:]); err != nil && !a.out.HasDocument() {
			a.out.JSONError(jsonAsked(argv[1:]), a.manner.status(err), err)
		}
	}
	msg.Error(err)
	return mannerOf(msg.Name).status(err)
}

// jsonAsked is the style of --json= in a command line that failed, whatever in it did.
func jsonAsked(args []string) (mode cli.JSONMode) {
	for i, arg := range args[:len(args)-len(afterDashes(args))] {
		value, ok := strings.CutPrefix(arg, "--json")
		switch {
		case ok && value == "" && i+1 < len(args):
			_ = mode.Set(args[i+1])
		case ok && value != "":
			_ = mode.Set(value[1:])
		}
	}
	return mode
}

// run carries out one command.
func (a *app) run(args []string) error {
	switch {
	case a.msg.Name == generatorName:
		return a.generator(args)
	case a.msg.Name == keyName:
		return a.interruptibly(func() error { return a.printKey(nil, os.Stdout) })
	case len(args) == 0:
		return a.manner.bare(a)
	case args[0] == "--help", args[0] == "-h":
		fmt.Fprint(a.out, a.manner.help(nil))
		return nil
	case args[0] == "help":
		return a.help(args[1:])
	case args[0] == "--version":
		fmt.Fprint(a.out, a.manner.version())
		return nil
	}
	v, rest, err := findVerb(a.msg.Name, args)
	if err == nil {
		return a.runVerb(v, rest)
	}
	if len(args) == 2 && args[1] == "--help" && (args[0] == "crypttab" || args[0] == "initrd") {
		fmt.Fprint(a.out, a.manner.help(nil))
		return nil
	}
	return err
}

// help is `help [COMMAND]`.
func (a *app) help(args []string) error {
	var v *verb
	if len(args) > 0 && a.manner.takesNames() {
		var err error
		if v, _, err = findVerb(a.msg.Name, args); err != nil {
			return err
		}
	}
	fmt.Fprint(a.out, a.manner.help(v))
	return nil
}

// findVerb returns the command that the arguments begin with, and what follows.
func findVerb(name string, args []string) (*verb, []string, error) {
	list := verbs()
	var names, group []string
	for i := range list {
		v := &list[i]
		if rest, ok := cutWords(args, v.name); ok {
			return v, rest, nil
		}
		names = append(names, v.name)
		if first, second, two := strings.Cut(v.name, " "); two && first == args[0] { // half of a name
			group = append(group, second)
		}
	}
	switch {
	case len(group) > 0 && len(args) > 1 && args[1] != "--help":
		err := cli.Unknown(fmt.Sprintf("%s has no command %q", args[0], args[1]), args[1], "", group)
		return nil, nil, &usageError{text: err.Error(), hint: commandNames(name)}
	case len(group) > 0:
		return nil, nil, &usageError{text: fmt.Sprintf("%s needs one of: %s", args[0], strings.Join(group, ", ")), hint: name + " help " + args[0] + " " + group[0]}
	}
	err := cli.Unknown(fmt.Sprintf("unknown command %q", args[0]), args[0], "", names)
	return nil, nil, &usageError{text: err.Error(), hint: commandNames(name)}
}

// runVerb reads the arguments of a command and runs it. As with systemd, --help wins
// wherever it stands.
func (a *app) runVerb(v *verb, args []string) error {
	options := args[:len(args)-len(afterDashes(args))]
	if slices.Contains(options, "--help") || slices.Contains(options, "-h") {
		fmt.Fprint(a.out, a.manner.help(v))
		return nil
	}
	if slices.Contains(options, "--version") {
		fmt.Fprint(a.out, a.manner.version())
		return nil
	}
	flags, run := v.make()
	hint := "usage: " + v.line(a.msg.Name)
	rest, err := parseArgs(args, flags)
	if err != nil {
		return &usageError{text: v.name + ": " + err.Error(), hint: hint}
	}
	switch {
	case len(rest) < v.min:
		return &usageError{text: v.name + ": too few arguments", hint: hint}
	case len(rest) > v.max:
		return &usageError{text: v.name + ": too many arguments", hint: hint}
	}
	if v.reads {
		return run(a, rest)
	}
	return a.interruptibly(func() error { return run(a, rest) })
}

// interruptibly has signals end the context of what waits, asks or writes. What only
// reads and prints goes without: for signals the runtime starts threads, which cost a
// tenth of the start.
func (a *app) interruptibly(do func() error) error {
	ctx, stop := cli.WithSignals(a.ctx)
	defer stop()
	a.ctx = ctx
	return do()
}

// cutWords removes the words of a command from the front.
func cutWords(args []string, name string) ([]string, bool) {
	for word := range strings.FieldsSeq(name) {
		if len(args) == 0 || args[0] != word {
			return nil, false
		}
		args = args[1:]
	}
	return args, true
}
