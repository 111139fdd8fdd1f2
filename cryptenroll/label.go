package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

func labelVerb(a *app) *cobra.Command {
	c := verb{use: "label DEVICE SLOT NAME", short: "Name a keyslot; an empty NAME removes the name",
		sections: []section{a.commonSection()}, least: 3, most: 3,
		run: func(ctx context.Context, args []string) error { return a.label(ctx, args[0], args[1], args[2]) }}.command(a)
	c.ValidArgsFunction = (&offers{a}).label
	return c
}

// label changes the name of one keyslot. No key is needed: a name is not a secret
// and opens nothing.
func (a *app) label(ctx context.Context, path, slotText, name string) error {
	if name != "" {
		if err := tokens.CheckLabel(name); err != nil {
			return err
		}
	}
	v, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	slot, err := v.slotOf(slotText)
	if err != nil {
		return err
	}
	err = v.device.Update(ctx, func(tx *luks2.Tx) error { return tokens.SetLabel(tx, a.enrolling, slot, name) })
	if err != nil {
		return fmt.Errorf("labelling keyslot %d of %s: %w", slot, v.path, err)
	}
	if a.options.json.On() {
		return a.out.JSON(a.options.json, labelView{v.place(), v.header.UUID, slot, name})
	}
	s, _ := v.slot(slot)
	s.Label = name
	a.msg.Plain(cli.LevelInfo, "Named: %s of %s", s.String(), v.path)
	return nil
}

// labelView is label --json.
type labelView struct {
	placeView
	UUID  string `json:"uuid"`
	Slot  int    `json:"slot"`
	Label string `json:"label"`
}
