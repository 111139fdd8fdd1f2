package main

import (
	"luksmith/internal/cli"
	"luksmith/tokens"
)

// planView is the plan for people and for --json.
type planView struct {
	placeView
	name     string     // of the volume in messages
	UUID     string     `json:"uuid"`
	Enroll   string     `json:"enrol,omitempty"`
	Label    string     `json:"label,omitempty"`
	Compat   int        `json:"compat,omitempty"`
	Unlock   bool       `json:"unlock"`
	Wipe     []wipeView `json:"wipe"`
	Unproven bool       `json:"unproven,omitempty"` // --force-unproven-wipe
	Warnings []string   `json:"warnings"`
}

type wipeView struct {
	Slot  int    `json:"slot"`
	Type  string `json:"type"`
	Label string `json:"label,omitempty"`
}

func (p *plan) view() planView {
	v := planView{placeView: p.place(), name: p.path, UUID: p.header.UUID, Enroll: p.what, Unlock: p.needsKey, Unproven: p.unproven,
		Wipe: []wipeView{}, Warnings: append([]string{}, p.warnings...)}
	if p.advice != "" {
		v.Warnings = append(v.Warnings, p.advice)
	}
	if p.request != nil {
		v.Label, v.Compat = p.request.Label, p.request.Compat
	}
	for _, s := range p.wipe {
		v.Wipe = append(v.Wipe, wipeView{s.ID, s.Kind, s.Label})
	}
	return v
}

// printPlans is --dry-run.
func (a *app) printPlans(plans []*plan) error {
	views := make([]planView, len(plans))
	for i, p := range plans {
		views[i] = p.view()
	}
	if a.options.json.On() {
		if len(views) == 1 {
			return a.out.JSON(a.options.json, views[0])
		}
		return a.out.JSON(a.options.json, views)
	}
	for _, v := range views {
		v.print(a.out)
	}
	return nil
}

func (v planView) print(w *cli.Stream) {
	line := func(format string, args ...any) { w.Linef(format, args...) }
	line("%s, UUID %s", v.name, v.UUID)
	if v.Unlock {
		line("  open the volume with a key that it has")
	}
	if v.Enroll != "" {
		line("  enrol: %s", v.Enroll)
	}
	for _, s := range v.Wipe {
		line("  wipe: %s", tokens.SlotText(s.Slot, s.Type, s.Label))
	}
	switch {
	case len(v.Wipe) == 0:
	case v.Unproven:
		line("  the wipe asks for no proof (--force-unproven-wipe)")
	case v.Enroll != "":
		line("  nothing is wiped unless the new keyslot, or one that stays, opens the volume in this call")
	default:
		line("  nothing is wiped unless a keyslot that stays opens the volume in this call")
	}
	for _, text := range v.Warnings {
		line("  warning: %s", text)
	}
	if v.Enroll == "" && len(v.Wipe) == 0 {
		line("  nothing to do")
	}
}
