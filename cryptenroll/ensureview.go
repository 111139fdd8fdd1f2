package main

import (
	"fmt"
	"strconv"

	"luksmith/internal/cli"
	"luksmith/tokens"
)

// ensureView is ensure --json.
type ensureView struct {
	Changed bool         `json:"changed"`
	Planned bool         `json:"planned"` // nothing was done: --dry-run, --check
	Volumes []volumeView `json:"volumes"`
	// Error is what the exit status stands for: the weightiest of the volumes.
	Error *cli.ErrorView `json:"error,omitempty"`
}

type volumeView struct {
	placeView
	UUID     string       `json:"uuid,omitempty"`
	Changed  bool         `json:"changed"`
	Keyslots []ensureSlot `json:"keyslots"`
	systemView
	Error string `json:"error,omitempty"`
	name  string
}

// ensureSlot is what became of one keyslot, or would.
type ensureSlot struct {
	Label  string `json:"label"`
	Type   string `json:"type"`
	Slot   *int   `json:"slot"`
	Token  *int   `json:"token"`
	Action action `json:"action"`
	Reason string `json:"reason,omitempty"`
	// Was is the keyslot that had the label before.
	Was  *int   `json:"was,omitempty"`
	What string `json:"what,omitempty"`
	// Slots are all keyslots of an enrolment that has several.
	Slots []int `json:"slots,omitempty"`
}

// add puts a volume into the document. e is nil if it could not be read.
func (v *ensureView) add(e *ensuring, device string, err error) {
	one := volumeView{placeView: placeView{Device: device}, name: device, Keyslots: []ensureSlot{}}
	if e != nil {
		one.placeView, one.name, one.UUID, one.Changed = e.volume.place(), e.volume.path, e.volume.header.UUID, e.changed
		for _, it := range append(e.items, e.wipes...) {
			one.Keyslots = append(one.Keyslots, it.view())
			one.Changed = one.Changed || v.Planned && it.writes()
		}
	}
	if e != nil && (v.Planned || err == nil) {
		one.systemView = e.system.view
		one.Changed = one.Changed || v.Planned && (one.changes() || one.Initrd != "")
	}
	if err != nil {
		one.Error = err.Error()
	}
	v.Changed = v.Changed || one.Changed
	v.Volumes = append(v.Volumes, one)
}

// writes reports whether the header is changed for an item.
func (it *item) writes() bool {
	return it.action == actionMade || it.action == actionReplaced || it.action == actionChanged || it.action == actionWiped
}

func (it *item) view() ensureSlot {
	v := ensureSlot{Action: it.action, Reason: it.reason, What: it.what}
	if it.slot != nil {
		v.Label, v.Type, v.Slot = it.slot.Label, it.slot.Kind, &it.slot.ID
		for _, t := range it.slot.Tokens {
			v.Token = &t.ID
		}
		v.Slots = several(it.ids())
	}
	if it.entry == nil {
		return v
	}
	v.Label, v.Type = it.Label, it.Type
	if it.action == actionReplaced {
		v.Was, v.Slot, v.Token, v.Slots = v.Slot, nil, nil, nil
	}
	if it.result != nil {
		v.Slot = &it.result.slot
		if it.result.token >= 0 {
			v.Token = &it.result.token
		}
		var made []int
		for _, one := range it.result.all() {
			made = append(made, one.slot)
		}
		v.Slots = several(made)
	}
	return v
}

// several are keyslots if there is more than one.
func several(ids []int) []int {
	if len(ids) < 2 {
		return nil
	}
	return ids
}

func (v *ensureView) print(a *app) error {
	if a.options.json.On() {
		return a.out.JSON(a.options.json, v)
	}
	for _, one := range v.Volumes {
		if one.UUID != "" {
			one.print(a.out, v.Planned)
		}
	}
	return nil
}

// intent is the word for what would be done.
func (a action) intent() string {
	switch a {
	case actionKept:
		return "keep"
	case actionMade:
		return "make"
	case actionReplaced:
		return "replace"
	case actionChanged:
		return "change"
	case actionWiped:
		return "wipe"
	case actionRefused:
		return "refuse"
	case actionSkipped:
		return "skip"
	}
	return ""
}

func (v *volumeView) print(w *cli.Stream, isPlan bool) {
	w.Linef("%s, UUID %s", v.name, v.UUID)
	for _, s := range v.Keyslots {
		word := string(s.Action)
		if isPlan {
			word = s.Action.intent()
		}
		line := word + ": " + s.name()
		if s.What != "" && (s.Action == actionMade || s.Action == actionReplaced) {
			line += ": " + s.What
		}
		if s.Reason != "" {
			line += "; " + s.Reason
		}
		w.Linef("  %s", line)
	}
	for _, line := range v.system(isPlan) {
		w.Linef("  %s", line)
	}
	if !v.Changed && v.Error == "" {
		w.Linef("  nothing to do")
	}
}

// system is what became of crypttab and initrd, in words.
func (v *volumeView) system(isPlan bool) (lines []string) {
	wrote := "written to "
	if isPlan {
		wrote = "write to "
	}
	if v.changes() {
		lines = append(lines, wrote+v.Crypttab.File+": "+v.Crypttab.New)
	}
	if v.Initrd != "" {
		lines = append(lines, "run: "+v.Initrd)
	}
	return lines
}

// name is the keyslot in words, with its number if it has one.
func (s *ensureSlot) name() string {
	switch {
	case s.Slot != nil:
		return tokens.SlotText(*s.Slot, s.Type, s.Label)
	case s.Was != nil:
		return tokens.SlotText(*s.Was, s.Type, s.Label)
	}
	return fmt.Sprintf("%s (%s)", strconv.QuoteToGraphic(s.Label), s.Type)
}
