package forecast

import (
	"encoding/hex"
	"fmt"
	"strings"

	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
)

// View is the forecast as JSON.
type View struct {
	Running RunningView `json:"running"`
	Next    []NextView  `json:"next"`
}

// RunningView is the boot that is running.
type RunningView struct {
	Entry    *EntryView    `json:"entry"` // null if none of the entries was started
	Reason   string        `json:"reason,omitempty"`
	Programs []ProgramView `json:"programs"`
	PCRs     []PCRView     `json:"pcrs"`
}

// EntryView is a boot entry.
type EntryView struct {
	ID        string `json:"id"`
	Title     string `json:"title,omitempty"`
	Path      string `json:"path"`
	MachineID string `json:"machine_id,omitempty"`
}

// ProgramView is a program of the boot chain.
type ProgramView struct {
	Role    string `json:"role"`
	Path    string `json:"path"`
	Kind    string `json:"kind"`
	Version string `json:"version,omitempty"`
}

// PCRView is what is known of a PCR of the boot that is running.
type PCRView struct {
	PCR       int      `json:"pcr"`
	Value     string   `json:"value"` // as the boot chain left it
	Explained bool     `json:"explained"`
	Words     []string `json:"words,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	// Events are null where a record tells of the boot and its files are gone.
	Events []EventView `json:"events"`
}

// EventView is an event of the log, and what explains it, "" if nothing does.
type EventView struct {
	Event string `json:"event"`
	By    string `json:"by"`
}

// NextView is what booting one entry gives.
type NextView struct {
	EntryView
	Running  bool            `json:"running"`
	Other    bool            `json:"other_system"`
	Programs []ProgramView   `json:"programs"`
	Asked    []int           `json:"asked"`
	Grade    bootchain.Grade `json:"grade"` // of the PCRs that were asked for
	Reason   string          `json:"reason,omitempty"`
	// Option is the value of --tpm2-pcrs= for them, "" where one is unknown.
	Option string      `json:"tpm2_pcrs,omitempty"`
	PCRs   []ValueView `json:"pcrs"`
}

// ValueView is what is predicted of a PCR.
type ValueView struct {
	PCR   int             `json:"pcr"`
	Grade bootchain.Grade `json:"grade"`
	// Value is that when a volume is unlocked, "" where it is unknown.
	Value string   `json:"value,omitempty"`
	Words []string `json:"words,omitempty"`
	Moved bool     `json:"moved"`
	// Unchanged says of an unknown value that nothing which goes into it has changed
	// since the boot that is running.
	Unchanged bool     `json:"unchanged,omitempty"`
	By        []string `json:"by,omitempty"`
	Reason    string   `json:"reason,omitempty"`
}

// View makes the form for programs.
func (f *Forecast) View() *View {
	v := &View{Next: []NextView{}, Running: RunningView{Programs: programs(f.Boot.Parts), PCRs: []PCRView{}}}
	if f.Err != nil {
		v.Running.Reason = f.Err.Error()
	} else {
		e := entryView(&f.Boot.Entry)
		v.Running.Entry = &e
	}
	for _, n := range chain.Predictable() {
		if f.shows(n) {
			v.Running.PCRs = append(v.Running.PCRs, f.pcrView(n))
		}
	}
	for i := range f.Next {
		v.Next = append(v.Next, f.nextView(&f.Next[i]))
	}
	return v
}

// shows reports whether a PCR is among those that were asked for.
func (f *Forecast) shows(pcr int) bool {
	if f.only == nil {
		return true
	}
	for _, n := range f.only {
		if n == pcr {
			return true
		}
	}
	return false
}

func entryView(e *bootchain.Entry) EntryView {
	return EntryView{ID: e.ID, Title: e.Title, Path: e.Target.Path, MachineID: e.MachineID}
}

func programs(parts []chain.Part) []ProgramView {
	list := []ProgramView{}
	for _, p := range parts {
		list = append(list, ProgramView{Role: p.Role, Path: p.Path, Kind: string(p.Kind), Version: p.Version})
	}
	return list
}

func (f *Forecast) pcrView(pcr int) PCRView {
	x := f.Boot.PCRs[pcr]
	v := PCRView{PCR: pcr, Value: hex.EncodeToString(x.Value[:]), Explained: x.Reason == "", Words: x.Words, Reason: x.Reason}
	if f.Boot.Accounts != nil {
		v.Events = []EventView{}
	}
	for _, a := range f.Boot.Accounts[pcr] {
		v.Events = append(v.Events, EventView(a))
	}
	return v
}

func (f *Forecast) nextView(n *Next) NextView {
	v := NextView{EntryView: entryView(&n.Entry), Running: n.Running, Other: n.Other, Programs: programs(n.Parts), Asked: n.Asked, PCRs: []ValueView{}, Option: n.option()}
	v.Grade, v.Reason = n.Judge()
	for _, pcr := range f.listed() {
		v.PCRs = append(v.PCRs, valueView(pcr, n.Of(pcr)))
	}
	return v
}

// listed are the PCRs that are shown of each entry.
func (f *Forecast) listed() []int {
	if f.only != nil {
		return f.only
	}
	return chain.Predictable()
}

func valueView(pcr int, x bootchain.Value) ValueView {
	v := ValueView{PCR: pcr, Grade: x.Grade, Words: x.Words, Moved: x.Moved, Unchanged: x.Same, By: x.By, Reason: x.Reason}
	if x.Grade != bootchain.Unknown {
		d := x.AtUnlock()
		v.Value = hex.EncodeToString(d[:])
	}
	return v
}

// option is what binds a key to the values.
func (n *Next) option() string {
	var list []string
	for _, pcr := range n.Asked {
		v := n.Of(pcr)
		if v.Grade == bootchain.Unknown {
			return ""
		}
		list = append(list, fmt.Sprintf("%d:%s=%x", pcr, chain.Bank, v.AtUnlock()))
	}
	return strings.Join(list, "+")
}
