package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

// recoveryVerb is `recovery`, with its subcommands.
func recoveryVerb(a *app) *cobra.Command {
	c := a.command("recovery", "Replace recovery keys, prove that kept ones open", nil, func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("recovery needs a command: rotate or check")
		}
		return cli.Unknown(fmt.Sprintf("recovery has no command %q", args[0]), args[0], "", []string{"rotate", "check"})
	})
	c.Args = cobra.ArbitraryArgs
	c.AddCommand(rotateVerb(a), checkVerb(a))
	return c
}

// rotation is one run of recovery rotate.
type rotation struct {
	app  *app
	slot slotName
}

func rotateVerb(a *app) *cobra.Command {
	r := &rotation{app: a}
	s := newSection("Rotate")
	f := s.flags
	addSlot(f, &r.slot, "slot", "the key of keyslot `N`, a number or a label; needed if there are several")
	for _, opt := range parameters(r.maker(), "recovery-key-file") {
		tokenFlags{}.add(f, &tokenFlag{app: a, handler: r.maker(), option: opt})
	}
	a.options.addHandoutFlags(f)
	f.BoolVar(&a.options.confirm, "recovery-confirm", false, "ask to type the key back also when it goes to others")
	f.StringVar(&a.options.label, "label", "", "call the new keyslot `NAME` (default: as before)")
	return a.onDevice("rotate", "Enrol a new recovery key, and wipe the old one once it is kept",
		[]section{s, a.unlockSection(tokenFlags{}), a.changeSection(), a.commonSection()}, r.run).command(a)
}

func (r *rotation) maker() *recovery.Handler { return handlerOf[*recovery.Handler](r.app.enrolling) }

// run is an enrolment of a recovery key that wipes the old one. The old one goes when
// somebody has the new one: who typed it back, to whom it was encrypted, or who made
// it.
func (r *rotation) run(ctx context.Context, path string) error {
	a, o := r.app, &r.app.options
	v, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	old, err := r.choose(v)
	if err != nil {
		return err
	}
	o.enrollWith, o.wipe = r.maker(), []string{strconv.Itoa(old.ID)}
	o.label = cmp.Or(o.label, old.Label)
	o.priority = priorityWord(old.Priority)
	o.yes = true // to wipe is what rotating means
	if o.escrow.Empty() && r.maker().KeyFile == "" {
		if o.unlock.headless {
			return tokens.WithHint(fmt.Errorf("%w: nobody is there who could type the new recovery key back", cli.ErrRefused),
				"encrypt it to those who keep it: --recovery-escrow=age1…")
		}
		o.confirm = true
	}
	p, err := a.planner().plan(ctx, v)
	if err != nil {
		return err
	}
	return a.carryOut(ctx, p)
}

// choose finds the keyslot of the old key.
func (r *rotation) choose(v *volume) (tokens.Slot, error) {
	if err := r.slot.resolve(v); err != nil {
		return tokens.Slot{}, err
	}
	list := v.recoverySlots(r.slot)
	switch {
	case len(list) == 1:
		return list[0], nil
	case r.slot.slot != luks2.AnySlot:
		s, _ := v.slot(r.slot.slot)
		return tokens.Slot{}, usagef("%s of %s has no recovery key", s.String(), v.path)
	case len(list) == 0:
		return tokens.Slot{}, tokens.WithHint(fmt.Errorf("%s has no recovery key that could be replaced", v.path),
			"enrol one: "+r.app.name+" --recovery-key "+v.words())
	}
	return tokens.Slot{}, tokens.WithHint(usagef("%s has %d recovery keys: name one with --slot=", v.path, len(list)), slotsText(list))
}

// recoverySlots are the keyslots of recovery keys, or the one that is named, if it has
// one.
func (v *volume) recoverySlots(named slotName) []tokens.Slot {
	return slices.DeleteFunc(slices.Clone(v.slots), func(s tokens.Slot) bool {
		_, ok := s.Handler.(*recovery.Handler)
		return !ok || named.slot != luks2.AnySlot && s.ID != named.slot
	})
}
