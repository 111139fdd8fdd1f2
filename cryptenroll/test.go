package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
)

func (a *app) testCommand() *cobra.Command {
	var everything bool
	which := newSection("Test")
	which.flags.IntVar(&a.options.unlock.slot, "slot", luks2.AnySlot, "keyslot `N` only")
	which.flags.BoolVar(&everything, "all", false, "everything that takes no more than one question each")
	c := a.command("test [DEVICE]", "Prove now, without mapping it, that a key opens the volume",
		[]section{which, a.unlockSection(tokenFlags{}), a.commonSection()}, func(cmd *cobra.Command, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			if everything { // devices may be named, and nothing is left out
				a.options.unlock.with, a.options.conflictError = nil, nil
			}
			if a.options.conflictError != nil {
				return a.options.conflictError
			}
			if names := a.options.unlock.methods(); len(names) > 1 || everything && len(names) > 0 {
				return usagef("%s: test one way to unlock, or --all", strings.Join(names, " and "))
			}
			p, err := a.openVolume(cmd.Context(), devices[0], false)
			if err != nil {
				return err
			}
			if everything {
				return a.testAll(cmd.Context(), p)
			}
			return a.testOne(cmd.Context(), p)
		})
	c.Args = arguments(0, 1)
	return c
}

// testResult is what became of one keyslot.
type testResult struct {
	Slot         int    `json:"slot"`
	Type         string `json:"type"`
	Label        string `json:"label"`
	Opens        bool   `json:"opens"`
	Tried        bool   `json:"tried"`
	With         string `json:"with,omitempty"`
	Milliseconds int64  `json:"milliseconds,omitempty"`
	Error        string `json:"error,omitempty"`
}

type testView struct {
	Device  string       `json:"device"`
	UUID    string       `json:"uuid"`
	Opens   bool         `json:"opens"`
	Results []testResult `json:"results"`
}

// testOne opens the volume by the way that the options name, as an enrolment
// would.
func (a *app) testOne(ctx context.Context, p *plan) error {
	if err := a.checkUnlockSlot(p); err != nil {
		return err
	}
	op, err := a.unlock(ctx, p)
	if err != nil {
		if a.options.json.On() && ctx.Err() == nil {
			view := testView{p.path, p.header.UUID, false, []testResult{}}
			return errors.Join(err, a.out.JSON(a.options.json, view))
		}
		return err
	}
	defer op.wipe()
	r := p.resultOf(op.key.Slot)
	r.Opens, r.Tried, r.With, r.Milliseconds = true, true, op.how, op.took.Milliseconds()
	if a.options.json.On() {
		return a.out.JSON(a.options.json, testView{p.path, p.header.UUID, true, []testResult{r}})
	}
	a.out.Linef("%s opens %s: %s, %d ms", slotText(r.Slot, r.Type, r.Label), p.path, r.With, r.Milliseconds)
	return nil
}

// resultOf is an empty result for a keyslot.
func (p *plan) resultOf(slot int) testResult {
	for _, s := range p.slots {
		if s.ID == slot {
			return testResult{Slot: slot, Type: s.Kind, Label: s.Label}
		}
	}
	return testResult{Slot: slot}
}

// testAll tries every token with its device, and one typed text on all keyslots
// that a person can open.
func (a *app) testAll(ctx context.Context, p *plan) error {
	results := make([]testResult, len(p.slots))
	for i, s := range p.slots {
		results[i] = p.resultOf(s.ID)
		if !s.Usable() {
			results[i].Error = s.Problem
		}
	}
	a.known = &opened{}
	defer func() { a.known.pin.Wipe(); a.known = nil }()
	for i := range p.slots {
		a.testToken(ctx, p, &p.slots[i], &results[i])
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := a.testTyped(ctx, p, results); err != nil {
		return err
	}
	if err := a.printTests(p, results); err != nil {
		return err
	}
	if !slices.ContainsFunc(results, func(r testResult) bool { return r.Opens }) {
		return fmt.Errorf("%s: %w", p.path, luks2.ErrNoKey)
	}
	return nil
}

// testToken unlocks through the one token of a slot, if it has one that unlocks. The
// PIN of a security device is asked for once, however many slots it opens.
func (a *app) testToken(ctx context.Context, p *plan, s *tokens.Slot, r *testResult) {
	u, ok := a.unlocking.ByName(s.Kind).(tokens.Unlocker)
	if !ok || !s.Usable() {
		return
	}
	only := *p
	only.slots = []tokens.Slot{*s}
	op, err := a.unlockWithTokens(ctx, &only, u)
	r.Tried = true
	if err != nil {
		r.Error = err.Error()
		return
	}
	op.key.Wipe()
	if op.pin.Len() > 0 {
		a.known.pin.Wipe()
		a.known.pin, a.known.question = op.pin, op.question
	}
	r.Opens, r.With, r.Milliseconds = true, op.how, op.took.Milliseconds()
}

// testTyped asks for one passphrase or recovery key and tries it on each keyslot
// that takes one.
func (a *app) testTyped(ctx context.Context, p *plan, results []testResult) error {
	kind := promptKind(p.slots)
	if kind == "" {
		return nil
	}
	answer, err := a.asker().Passphrase(ctx, askpass.PassphraseQuestion{Kind: kind, Disk: p.path})
	if errors.Is(err, tokens.ErrNoPrompt) || errors.Is(err, tokens.ErrCancelled) && ctx.Err() == nil {
		return nil // those slots are reported as not tried
	}
	if err != nil {
		return err
	}
	defer answer.Wipe()
	for i, s := range p.slots {
		if !s.ByPerson() {
			continue
		}
		r := &results[i]
		r.Tried = true
		for _, typed := range answer.Secrets {
			if err := p.testPassphrase(ctx, s.ID, typed, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// testPassphrase tries one typed text on one keyslot; an error ends the run.
func (p *plan) testPassphrase(ctx context.Context, slot int, typed secret.Secret, r *testResult) error {
	candidates := recovery.Candidates(typed)
	defer secret.WipeAll(candidates)
	for _, c := range candidates {
		begin := time.Now()
		vk, err := p.device.OpenKeyslot(ctx, slot, c)
		switch {
		case err == nil:
			vk.Wipe()
			r.Opens, r.With, r.Error, r.Milliseconds = true, "typed text", "", time.Since(begin).Milliseconds()
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.Is(err, luks2.ErrNoKey):
			r.Error = err.Error()
		}
	}
	return nil
}

func (a *app) printTests(p *plan, results []testResult) error {
	opens := slices.ContainsFunc(results, func(r testResult) bool { return r.Opens })
	if a.options.json.On() {
		return a.out.JSON(a.options.json, testView{p.path, p.header.UUID, opens, results})
	}
	t := &cli.Table{Columns: []cli.Column{{Name: "SLOT", Right: true}, {Name: "TYPE"}, {Name: "LABEL"}, {Name: "OPENS"}, {Name: "MS", Right: true}, {Name: "WITH"}}}
	for _, r := range results {
		t.Rows = append(t.Rows, r.row())
	}
	t.Style = func(row, column int) cli.Style {
		if row < 0 || t.Columns[column].Name != "OPENS" || !results[row].Tried {
			return cli.Plain
		}
		return map[bool]cli.Style{true: cli.Green, false: cli.Red}[results[row].Opens]
	}
	return a.out.Table(t)
}

func (r *testResult) row() []string {
	row := []string{strconv.Itoa(r.Slot), r.Type, r.Label, "not tried", "", r.Error}
	switch {
	case r.Opens:
		row[3], row[4], row[5] = "yes", strconv.FormatInt(r.Milliseconds, 10), r.With
	case r.Tried:
		row[3] = "no"
	}
	return row
}
