package main

import (
	"fmt"

	"luksmith/internal/cli"
	"luksmith/luks2"
)

// followView is follow --json.
type followView struct {
	// Changed says whether a header was written; with --dry-run whether it would be.
	Changed bool               `json:"changed"`
	DryRun  bool               `json:"dry_run,omitempty"`
	Volumes []followVolumeView `json:"volumes"`
}

type followVolumeView struct {
	placeView
	UUID     string            `json:"uuid"`
	OpenedBy *int              `json:"opened_by"` // keyslot; null if that was not needed
	States   []followStateView `json:"states"`
	// Signatures is how many were written into tokens with a PIN or a latch; with
	// --dry-run how many would be.
	Signatures int        `json:"signatures,omitempty"`
	Wiped      []wipeView `json:"wiped"`
	// Left are keyslots that no entry leads to: wiped at a call in which a token of
	// the running state opens the volume; with --dry-run what would be wiped then.
	Left  []leftView     `json:"left"`
	Error *cli.ErrorView `json:"error,omitempty"`
}

type leftView struct {
	wipeView
	Reason string `json:"reason"`
}

// followStateView is a boot entry.
type followStateView struct {
	Entry   string `json:"entry"`
	Title   string `json:"title,omitempty"`
	PCRs    string `json:"pcrs,omitempty"`
	Running bool   `json:"running"`
	Grade   string `json:"grade"`
	Reason  string `json:"reason,omitempty"` // why there is no key
	// Doubtful: its files changed while this system did not run, and nobody has booted
	// or accepted them since.
	Doubtful bool `json:"doubtful"`
	Slot     *int `json:"slot"`
	New      bool `json:"new"` // with --dry-run would be made
	// Otherwise says that this is the entry with an initrd that does otherwise about
	// os-separator than the one that runs.
	Otherwise bool `json:"otherwise_separated,omitempty"`
}

func (f *following) view(plans []*followPlan) followView {
	v := followView{DryRun: f.app.options.dryRun, Volumes: []followVolumeView{}}
	for _, p := range plans {
		w := followVolumeView{placeView: p.place(), UUID: p.header.UUID, States: []followStateView{}, Wiped: []wipeView{}, Left: []leftView{}}
		if p.opened != luks2.AnySlot {
			w.OpenedBy = &p.opened
		}
		for _, left := range p.left {
			w.Left = append(w.Left, leftView{wipeView{left.slot.ID, left.slot.Kind, left.slot.Label}, left.why})
		}
		for _, s := range p.wiped {
			w.Wiped = append(w.Wiped, wipeView{s.ID, s.Kind, s.Label})
			v.Changed = true
		}
		w.Error = errorView(p.failed)
		w.Signatures = p.signatures
		v.Changed = v.Changed || p.signatures > 0
		for _, s := range p.states {
			w.States = append(w.States, s.view(v.DryRun))
			v.Changed = v.Changed || s.made || v.DryRun && s.wanted()
		}
		v.Volumes = append(v.Volumes, w)
	}
	return v
}

func (s *followState) view(dryRun bool) followStateView {
	v := followStateView{Entry: s.entry.ID, Title: s.entry.Title, PCRs: numbers(s.pcrs), Running: s.running, Grade: string(s.grade), Reason: s.reason,
		Doubtful: s.doubtful, New: s.made || dryRun && s.wanted(), Otherwise: s.otherwise}
	holder := s
	if s.same != nil {
		holder = s.same
	}
	if holder.slot != luks2.AnySlot {
		v.Slot = &holder.slot
	}
	return v
}

// report says what each entry has now.
func (f *following) report(plans []*followPlan) error {
	a := f.app
	if a.options.json.On() {
		return a.out.JSON(a.options.json, f.view(plans))
	}
	f.warnDoubtful(plans)
	for _, p := range plans {
		if p.ownStates() == 0 {
			a.out.Linef("%s: %s", p.path, noOwnEntry)
		}
		for _, s := range p.states {
			a.out.Linef("%s: %s: %s", p.path, s.name(), s.text(a.options.dryRun))
		}
		if p.signatures > 0 {
			verb := "written"
			if a.options.dryRun {
				verb = "to be written"
			}
			a.out.Linef("%s: signatures for states %s: %d", p.path, verb, p.signatures)
		}
		for _, s := range p.wiped {
			a.out.Linef("%s: wiped %s, which no boot entry needs", p.path, s.String())
		}
		for _, left := range p.left {
			a.out.Linef("%s: %s is not needed any more (%s) and goes when a keyslot for the running state has opened the volume", p.path, left.slot.String(), left.why)
		}
		for _, e := range p.made {
			for _, note := range e.result.Notes {
				if e == p.made[0] && note != "" {
					a.msg.Warning(note)
				}
			}
		}
	}
	return nil
}

// noOwnEntry is what is said where no key can be made at all.
const noOwnEntry = "no boot entry of this system was found on the boot partitions"

// ownStates counts the states that are not another system's.
func (p *followPlan) ownStates() (n int) {
	for _, s := range p.states {
		if !s.foreign {
			n++
		}
	}
	return n
}

// name is the entry in words.
func (s *followState) name() string {
	switch {
	case s.running:
		return s.label + " (running)"
	case s.otherwise:
		return s.label + " (if its initrd does otherwise about os-separator)"
	}
	return s.label
}

// text says in one line what becomes of the entry.
func (s *followState) text(dryRun bool) string {
	pcrs := "PCR " + numbers(s.pcrs)
	switch {
	case s.same != nil:
		return fmt.Sprintf("%s, as %s", pcrs, s.same.label)
	case s.made:
		return fmt.Sprintf("%s, new keyslot %d", pcrs, s.slot)
	case s.signed:
		return fmt.Sprintf("%s, keyslot %d by a signature", pcrs, s.slot)
	case s.slot != luks2.AnySlot:
		return fmt.Sprintf("%s, keyslot %d", pcrs, s.slot)
	case s.foreign:
		return "left alone: " + s.reason
	case s.wanted() && dryRun:
		return pcrs + ", a keyslot will be made"
	case s.reason == "":
		return "no key was made"
	}
	return fmt.Sprintf("no key, it will ask for a passphrase: %s (%s)", s.reason, s.entry.Target.Path)
}
