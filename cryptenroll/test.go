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

func testVerb(a *app) *cobra.Command {
	var everything bool
	which := newSection("Test")
	addSlot(which.flags, &a.options.unlock.slotName, "slot", "keyslot `N` only, a number or a label")
	which.flags.BoolVar(&everything, "all", false, "everything that takes no more than one question each")
	return a.onDevice("test", "Prove now, without mapping it, that a key opens the volume",
		[]section{which, a.unlockSection(tokenFlags{}), a.commonSection()},
		func(ctx context.Context, device string) error {
			if err := a.options.checkTest(everything); err != nil {
				return err
			}
			v, err := a.openVolume(ctx, device, false)
			if err != nil {
				return err
			}
			r := &testRun{volume: v, unlocker: a.unlocker(), out: a.out, json: a.options.json}
			if everything {
				return r.all(ctx)
			}
			return r.one(ctx)
		}).command(a)
}

// checkTest refuses several ways to unlock. With --all, devices may be named, and
// nothing is left out.
func (o *options) checkTest(everything bool) error {
	if everything {
		o.unlock.with, o.conflictError = nil, nil
	}
	if o.conflictError != nil {
		return o.conflictError
	}
	if names := o.unlock.methods(); len(names) > 1 || everything && len(names) > 0 {
		return usagef("%s: test one way to unlock, or --all", strings.Join(names, " and "))
	}
	return nil
}

// testRun is one run of test.
type testRun struct {
	*volume
	unlocker *unlocker
	out      *cli.Stream
	json     cli.JSONMode
}

// errorView is an error within a document that has more; nil for nil.
func errorView(err error) *cli.ErrorView {
	if err == nil {
		return nil
	}
	return cli.ViewError(cli.ExitStatus(err), err)
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
	// Altered says that the token does not demand any more what it was enrolled with.
	Altered bool `json:"altered,omitempty"`
}

type testView struct {
	placeView
	UUID    string       `json:"uuid"`
	Opens   bool         `json:"opens"`
	Results []testResult `json:"results"`
	// Error says why nothing opens; missing where it does, and of --all.
	Error *cli.ErrorView `json:"error,omitempty"`
}

// one opens the volume by the way that the options name, as an enrolment
// would.
func (r *testRun) one(ctx context.Context) error {
	if err := r.unlocker.how.resolve(r.volume); err != nil {
		return err
	}
	op, err := r.unlocker.unlock(ctx, &target{volume: r.volume})
	if err != nil {
		if r.json.On() && ctx.Err() == nil {
			view := testView{r.place(), r.header.UUID, false, []testResult{}, errorView(err)}
			return errors.Join(err, r.out.JSON(r.json, view))
		}
		return err
	}
	defer op.wipe()
	got := r.resultOf(op.key.Slot)
	r.judge([]*testResult{&got}, op.key)
	got.Opens, got.Tried, got.With, got.Milliseconds = true, true, op.how, op.took.Milliseconds()
	if r.json.On() {
		return r.out.JSON(r.json, testView{r.place(), r.header.UUID, true, []testResult{got}, nil})
	}
	r.out.Linef("%s opens %s: %s, %d ms", tokens.SlotText(got.Slot, got.Type, got.Label), r.path, got.With, got.Milliseconds)
	if got.Altered {
		r.out.Linef("  %s", tokens.AlteredText)
	}
	return nil
}

// resultOf is an empty result for a keyslot.
func (v *volume) resultOf(slot int) testResult {
	for _, s := range v.slots {
		if s.ID == slot {
			return testResult{Slot: slot, Type: s.Kind, Label: s.Label, Altered: s.Altered}
		}
	}
	return testResult{Slot: slot}
}

// all tries every token with its device, and one typed text on all keyslots
// that a person can open.
func (r *testRun) all(ctx context.Context) error {
	results := make([]testResult, len(r.slots))
	for i, s := range r.slots {
		results[i] = r.resultOf(s.ID)
		if !s.Usable() {
			results[i].Error = s.Problem
		}
	}
	r.unlocker.known = &opened{}
	defer func() { r.unlocker.known.pin.Wipe() }()
	for i := range r.slots {
		r.token(ctx, &r.slots[i], &results[i], pointers(results))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := r.typed(ctx, results); err != nil {
		return err
	}
	if err := r.print(results); err != nil {
		return err
	}
	if !slices.ContainsFunc(results, func(r testResult) bool { return r.Opens }) {
		return &notOpened{"nothing that was tried opens " + r.path}
	}
	return nil
}

// token unlocks through the one token of a slot, if it has one that unlocks. The
// PIN of a security device is asked for once, however many slots it opens.
func (r *testRun) token(ctx context.Context, s *tokens.Slot, result *testResult, results []*testResult) {
	h, ok := s.Handler.(tokens.Unlocker)
	if !ok || !s.Usable() {
		return
	}
	only := *r.volume
	only.slots = []tokens.Slot{*s}
	named := *r.unlocker
	named.how.slot = s.ID
	op, err := named.withTokens(ctx, &target{volume: &only}, h)
	result.Tried = true
	if err != nil {
		result.Error = strings.TrimPrefix(err.Error(), s.String()+": ") // the row says which
		return
	}
	r.judge(results, op.key)
	op.key.Wipe()
	if known := r.unlocker.known; op.pin.Len() > 0 {
		known.pin.Wipe()
		known.pin, known.question = op.pin, op.question
	}
	result.Opens, result.With, result.Milliseconds = true, op.how, op.took.Milliseconds()
}

// pointers are the elements of a list, to be changed.
func pointers(list []testResult) []*testResult {
	all := make([]*testResult, len(list))
	for i := range list {
		all[i] = &list[i]
	}
	return all
}

// judge finds out with the volume key which tokens do not demand any more what they
// were enrolled with.
func (r *testRun) judge(results []*testResult, vk *luks2.VolumeKey) {
	for _, result := range results {
		for _, t := range r.header.TokensOf(result.Slot) {
			if r.unlocker.types.Standing(r.header, t, vk) == tokens.Altered {
				result.Altered = true
			}
		}
	}
}

// typed asks for one passphrase or recovery key and tries it on each keyslot
// that takes one.
func (r *testRun) typed(ctx context.Context, results []testResult) error {
	kind := promptKind(r.slots)
	if kind == "" {
		return nil
	}
	answer, err := r.unlocker.person.asker().Passphrase(ctx, askpass.PassphraseQuestion{Kind: kind, Disk: r.path})
	if errors.Is(err, tokens.ErrNoPrompt) || errors.Is(err, tokens.ErrCancelled) && ctx.Err() == nil {
		return nil // those slots are reported as not tried
	}
	if err != nil {
		return err
	}
	defer answer.Wipe()
	defer r.unlocker.person.meanwhile(fmt.Sprintf("Checking the %s takes a while by design: %s", kind, r.path))()
	for i, s := range r.slots {
		if !s.ByPerson() {
			continue
		}
		results[i].Tried = true
		for _, typed := range answer.Secrets {
			if err := r.testPassphrase(ctx, s.ID, typed, &results[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// testPassphrase tries one typed text on one keyslot; an error ends the run.
func (v *volume) testPassphrase(ctx context.Context, slot int, typed secret.Secret, r *testResult) error {
	candidates := recovery.Candidates(typed)
	defer secret.WipeAll(candidates)
	for _, c := range candidates {
		begin := time.Now()
		vk, err := v.device.OpenKeyslot(ctx, slot, c)
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

func (r *testRun) print(results []testResult) error {
	opens := slices.ContainsFunc(results, func(r testResult) bool { return r.Opens })
	if r.json.On() {
		return r.out.JSON(r.json, testView{r.place(), r.header.UUID, opens, results, nil})
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
	return r.out.Table(t)
}

func (r *testResult) row() []string {
	row := []string{strconv.Itoa(r.Slot), r.Type, r.Label, "not tried", "", r.Error}
	switch {
	case r.Opens:
		row[3], row[4], row[5] = "yes", strconv.FormatInt(r.Milliseconds, 10), r.With
	case r.Tried:
		row[3] = "no"
	}
	if r.Altered {
		row[5] = strings.TrimPrefix(row[5]+"; "+tokens.AlteredText, "; ")
	}
	return row
}
