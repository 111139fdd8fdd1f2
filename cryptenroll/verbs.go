package main

import (
	"context"

	"github.com/spf13/cobra"
)

// verbs are the subcommands. Each stands in a file of its own, and here in one line.
func (a *app) verbs() []*cobra.Command {
	return []*cobra.Command{
		listVerb(a),
		testVerb(a),
		doctorVerb(a),
		labelVerb(a),
		backupVerb(a),
		resealVerb(a),
		policyVerb(a),
		upgradeVerb(a),
	}
}

// verb is one subcommand.
type verb struct {
	use      string // "label DEVICE SLOT NAME"
	short    string // for the list of commands, no full stop
	sections []section
	// least and most are how many arguments it takes.
	least, most int
	run         func(ctx context.Context, args []string) error
}

// command makes the verb known to cobra.
func (v verb) command(a *app) *cobra.Command {
	c := a.command(v.use, v.short, v.sections, func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), args) })
	c.Args = arguments(v.least, v.most)
	return c
}

// onDevice is a verb whose one argument, DEVICE, may be left out.
func (a *app) onDevice(name, short string, sections []section, run func(ctx context.Context, device string) error) *cobra.Command {
	return verb{use: name + " [DEVICE]", short: short, sections: sections, most: 1,
		run: func(ctx context.Context, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			return run(ctx, devices[0])
		}}.command(a)
}
