package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// verbTable are the subcommands. Each stands in a file of its own, and here in one line.
var verbTable = []struct {
	name string
	make func(*app) *cobra.Command
}{
	{"list", listVerb},
	{"test", testVerb},
	{"doctor", doctorVerb},
	{"predict", predictVerb},
	{"ensure", ensureVerb},
	{"label", labelVerb},
	{"backup", backupVerb},
	{"reseal", resealVerb},
	{"recovery", recoveryVerb},
	{"follow", followVerb},
	{"policy", policyVerb},
	{"pkcs11-upgrade", upgradeVerb},
}

// verbs makes those subcommands whose names stand among the words of the call, since
// the options of one are many, and all of them for help and completion.
func (a *app) verbs(words []string) (list []*cobra.Command) {
	every := slices.ContainsFunc(words, asksForVerbs)
	for _, v := range verbTable {
		if every || slices.Contains(words, v.name) {
			list = append(list, v.make(a))
		}
	}
	return list
}

func isVerb(word string) bool {
	for _, v := range verbTable {
		if v.name == word {
			return true
		}
	}
	return false
}

// asksForVerbs reports whether a word wants to know what there is: help, or what a
// shell asks for completion.
func asksForVerbs(word string) bool {
	return slices.Contains([]string{"help", "completion"}, word) || slices.ContainsFunc([]string{"--help", "-h", "__"},
		func(prefix string) bool { return strings.HasPrefix(word, prefix) })
}

// verb is one subcommand.
type verb struct {
	use      string // "label DEVICE SLOT NAME"
	short    string // for the list of commands, no full stop
	sections []section
	// least and most are how many arguments it takes.
	least, most int
	run         func(ctx context.Context, args []string) error
	brief       bool // reads and prints, which a signal may end anywhere
}

// command makes the verb known to cobra.
func (v verb) command(a *app) *cobra.Command {
	c := a.command(v.use, v.short, v.sections, func(cmd *cobra.Command, args []string) error {
		args = v.withImage(&a.options.image, args)
		if v.brief {
			return v.run(cmd.Context(), args)
		}
		return interruptibly(cmd.Context(), func(ctx context.Context) error { return v.run(ctx, args) })
	})
	c.Args = func(c *cobra.Command, args []string) error {
		return arguments(v.least, v.most)(c, v.withImage(&a.options.image, args))
	}
	return c
}

// withImage puts --image= into the place of a DEVICE that may not be left out.
func (v verb) withImage(image *imageOptions, args []string) []string {
	if !strings.Contains(v.use, " DEVICE ") || !image.given() {
		return args
	}
	return append([]string{image.file}, args...)
}

// onDevice is a verb whose one argument, DEVICE, may be left out.
func (a *app) onDevice(name, short string, sections []section, run func(ctx context.Context, device string) error) verb {
	return verb{use: name + " [DEVICE]", short: short, sections: sections, most: 1,
		run: func(ctx context.Context, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			return run(ctx, devices[0])
		}}
}
