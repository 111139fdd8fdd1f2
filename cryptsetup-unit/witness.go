package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootrecord"
)

// witness gathers what the record of the boot says about one attempt.
type witness struct {
	types []string // whose tokens are worth a record
	found *contest.Found
	// failures are those of the contests, in their order.
	failures []*contest.Failure

	mu    sync.Mutex // a way that a contest left behind may still tell something
	sight *tokens.Sight
}

// newWitness has the handlers tell what they see.
func newWitness(handlers tokens.Set) *witness {
	w := &witness{}
	for _, h := range handlers {
		if teller, ok := h.(tokens.Witness); ok {
			w.types = append(w.types, h.Type())
			teller.Witness(w.see)
		}
	}
	return w
}

// see keeps what was seen last, which is what the decision came from.
func (w *witness) see(s *tokens.Sight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sight = s
}

// decided notes how a contest ended.
func (w *witness) decided(f *contest.Found, failures []*contest.Failure) {
	w.found = f
	w.failures = append(w.failures, failures...)
}

// recordBoot adds the attempt to the record of the boot, if the volume has tokens that
// hang on the state of the machine. Nothing hangs on the record, so what is wrong with
// it only stands in the report.
func (at *attempt) recordBoot() {
	w := at.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	if at.volume == nil || w.found == nil && len(w.failures) == 0 || w.sight == nil && !w.concerns(at.volume.tokens) {
		return
	}
	id, err := bootrecord.CurrentID(at.as.root)
	if err == nil {
		err = bootrecord.Runtime(at.as.root).Append(id, at.unlocked())
	}
	if err != nil {
		at.report.warn("nothing was added to the record of this boot: " + err.Error())
	}
}

func (w *witness) concerns(list []luks2.Token) bool {
	return slices.ContainsFunc(list, func(t luks2.Token) bool { return slices.Contains(w.types, t.Type) })
}

// unlocked is the attempt as the record has it.
func (at *attempt) unlocked() *bootrecord.Unlock {
	w := at.witness
	u := &bootrecord.Unlock{Time: time.Now().UTC(), Volume: at.volume.uuid, Name: at.job.entry.Name}
	if w.sight == nil {
		w.sight = &tokens.Sight{}
	}
	if len(w.sight.PCRs) > 0 {
		u.Bank, u.PCRs = w.sight.Bank, bootrecord.PCRs{}
		for i, value := range w.sight.PCRs {
			u.PCRs[i] = value
		}
	}
	if f := w.found; f != nil {
		way := at.wayOf(f.By, f.Token)
		way.Keyslot = &f.Slot
		if way.Label == "" {
			way.Label = at.labelOf(f.Slot)
		}
		u.Opened = &way
	}
	u.Failed = at.failed()
	return u
}

// wayOf describes a way by its name and its token, -1 without one.
func (at *attempt) wayOf(name string, token int) bootrecord.Way {
	w := bootrecord.Way{By: "passphrase"}
	word, isToken := strings.CutSuffix(name, " token")
	switch {
	case isToken:
		w.By = word
	case strings.HasPrefix(name, "key file "):
		w.By = "key file"
	}
	for _, t := range at.volume.tokens {
		if t.ID != token {
			continue
		}
		w.Token, w.Policy, w.Label = &t.ID, at.witness.sight.Policies[token], tokens.Label(t.Raw)
		if len(t.Keyslots) == 1 {
			w.Keyslot = &t.Keyslots[0]
		}
	}
	return w
}

// labelOf is the label of a keyslot that no token opened.
func (at *attempt) labelOf(slot int) (label string) {
	for _, t := range at.volume.tokens {
		if slices.Contains(t.Keyslots, slot) {
			label = cmp.Or(label, tokens.Label(t.Raw))
		}
	}
	return label
}

// failed are the failures, those of tokens one by one.
func (at *attempt) failed() (list []bootrecord.Failure) {
	told := map[int]bool{}
	add := func(e *tokens.TokenError) {
		if told[e.ID] {
			return
		}
		told[e.ID] = true
		name := e.Type
		if h := at.types.all.ByType(e.Type); h != nil {
			name = h.Name()
		}
		list = append(list, failureOf(at.wayOf(name+" token", e.ID), e.Err))
	}
	for _, e := range at.witness.sight.Failed {
		add(e)
	}
	for _, f := range at.witness.failures {
		each := tokenErrors(f.Err)
		for _, e := range each {
			add(e)
		}
		if len(each) == 0 {
			list = append(list, failureOf(at.wayOf(f.Way, -1), f.Err))
		}
	}
	return list
}

func failureOf(w bootrecord.Way, err error) bootrecord.Failure {
	f := bootrecord.Failure{Way: w, Error: fmt.Sprint(err), Exit: cli.ExitStatus(err)}
	if moved, ok := errors.AsType[*tokens.PolicyError](err); ok {
		for _, p := range moved.PCRs {
			f.Differ = append(f.Differ, p.PCR)
		}
	}
	return f
}
