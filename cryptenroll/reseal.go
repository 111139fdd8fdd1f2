package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// resealOptions are those of the reseal command.
type resealOptions struct {
	slot     slotName
	ifNeeded bool
	keepOld  string // label for the old token; keepSame keeps its label
	dropDead bool
	drop     []string // labels
}

// keepSame is what --keep-old without a label means.
const keepSame = "\x00"

func resealVerb(a *app) *cobra.Command {
	r := &resealOptions{}
	known := tokenFlags{}
	s := newSection("Re-seal")
	f := s.flags
	addSlot(f, &r.slot, "slot", "re-seal keyslot `N`, a number or a label; needed if several have a TPM2 token")
	f.BoolVar(&r.ifNeeded, "if-needed", false, "write nothing while the slot opens in the present state")
	f.StringVar(&r.keepOld, "keep-old", "", "leave the old slot as well, for a rollback, and call it `LABEL`")
	f.Lookup("keep-old").NoOptDefVal = keepSame
	f.BoolVar(&r.dropDead, "drop-dead", false, "wipe TPM2 slots that can never open again")
	f.StringSliceVar(&r.drop, "drop", nil, "wipe the TPM2 slots called `LABEL`")
	a.addTPM2Parameters(f, known, "seal to this TPM", "tpm2-pcrs", "tpm2-pcrs-as-they-are", "tpm2-signature", "tpm2-pcrlock", "tpm2-latch",
		"tpm2-with-pin", "tpm2-public-key", "tpm2-public-key-pcrs", "tpm2-public-key-policyref")
	a.sameTPM(known)
	f.StringVar(&a.options.label, "label", "", "call the new keyslot `NAME` (default: as before, with --keep-old the system's version)")
	f.StringVar(&a.options.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262")
	return a.onDevice("reseal", "Bind a TPM2 slot to the present state of the machine",
		[]section{s, a.unlockSection(known), a.changeSection(), a.commonSection()},
		func(ctx context.Context, device string) error {
			return (&resealing{resealOptions: r, app: a}).run(ctx, device)
		}).command(a)
}

// resealing is one run of reseal.
type resealing struct {
	*resealOptions
	app  *app
	plan *plan
	old  *tpm2.TokenState // that is re-sealed
}

// run is an enrolment whose enroller starts from a token that is there.
func (r *resealing) run(ctx context.Context, path string) error {
	a := r.app
	v, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	p := &plan{volume: v, unproven: a.options.unprovenWipe}
	r.plan = p
	h := a.tpm2()
	states, err := h.Check(ctx, v.unlockRequest(v.tokensOf(h), nil))
	if err != nil {
		return err
	}
	if err := r.slot.resolve(v); err != nil {
		return err
	}
	if len(states) == 0 {
		return tokens.WithHint(errors.New(v.noneText(h, luks2.AnySlot)), "enrol one: cryptenroll "+h.DeviceOption()+" "+v.words())
	}
	if r.old, err = r.choose(v, states); err != nil {
		return err
	}
	if err := r.planNew(h); err != nil {
		return err
	}
	if err := r.planDrops(states); err != nil {
		return err
	}
	r.tellStates(states)
	p.needsKey = p.enroller != nil || len(p.wipe) > 0 && !a.options.unprovenWipe
	if p.empty() {
		return r.reportUnneeded()
	}
	return a.carryOut(ctx, p)
}

// reportUnneeded says that --if-needed found nothing to do.
func (r *resealing) reportUnneeded() error {
	a, p, old := r.app, r.plan, r.old
	slot := old.Token.Keyslots[0]
	if !a.options.json.On() {
		a.msg.Err.Linef("%s %s; nothing was written.", tokens.SlotText(slot, "tpm2", old.Label), old.State)
		return nil
	}
	v := changeView{placeView: p.place(), UUID: p.header.UUID, Wiped: []wipeView{},
		Enrolled: &enrolledView{Slot: slot, Token: &old.Token.ID, Type: "tpm2", Label: old.Label, Unchanged: true, Proven: old.State == tpm2.Opens, Requires: []string{}, Replaced: []int{}, Notes: []string{}}}
	if s, ok := p.slot(slot); ok {
		v.Enrolled.Requires = append(v.Enrolled.Requires, needs(&s)...)
	}
	return a.out.JSON(a.options.json, v)
}

// tellStates says why the token is re-sealed, and spares the unlocking those that
// are known not to open.
func (r *resealing) tellStates(states []tpm2.TokenState) {
	for _, s := range states {
		if s.State == tpm2.Opens || s.State == tpm2.NeedsPIN {
			continue
		}
		r.plan.closed = append(r.plan.closed, s.Token.ID)
		if s.Token.ID == r.old.Token.ID && r.plan.enroller != nil && !s.State.Fits() {
			r.app.msg.Err.Linef("%s: %v", tokens.SlotText(s.Token.Keyslots[0], "tpm2", s.Label), s.Err)
		}
	}
}

// choose finds the token that is meant: that of --slot=, the only one, or the only
// one that does not open now. Those that were left for a rollback are not meant, nor
// dead ones that are to be dropped while there are others.
func (r *resealOptions) choose(v *volume, states []tpm2.TokenState) (*tpm2.TokenState, error) {
	if r.slot.slot != luks2.AnySlot {
		i := slices.IndexFunc(states, func(s tpm2.TokenState) bool { return s.Token.Keyslots[0] == r.slot.slot })
		if i < 0 {
			return nil, usagef("keyslot %d of %s is not a TPM2 keyslot that can be used here", r.slot.slot, v.path)
		}
		return &states[i], nil
	}
	alive := slices.ContainsFunc(states, func(s tpm2.TokenState) bool { return !s.State.Dead() })
	var meant, closed []*tpm2.TokenState
	for i, s := range states {
		if s.Superseded || r.dropDead && alive && s.State.Dead() {
			continue
		}
		meant = append(meant, &states[i])
		if !s.State.Fits() {
			closed = append(closed, &states[i])
		}
	}
	switch {
	case len(meant) == 1, r.ifNeeded && len(closed) == 0:
		return meant[0], nil
	case len(closed) == 1:
		return closed[0], nil
	}
	var list []string
	for _, s := range meant {
		list = append(list, tokens.SlotText(s.Token.Keyslots[0], "tpm2", s.Label)+" "+stateText(s))
	}
	return nil, &severalTokens{fmt.Sprintf("%s has %d TPM2 keyslots: name one with --slot=", v.path, len(meant)), list}
}

// stateText is the state of a token, with the reason if it is not known.
func stateText(s *tpm2.TokenState) string {
	if s.State == tpm2.Unknown && s.Err != nil {
		return fmt.Sprintf("%s: %v", s.State, s.Err)
	}
	return s.State.String()
}

// severalTokens is an error about which of them is meant. It is tokens.ErrUsage.
type severalTokens struct {
	text string
	list []string
}

func (e *severalTokens) Error() string { return e.text }

func (e *severalTokens) Is(target error) bool { return target == tokens.ErrUsage }

// Hints are one for each.
func (e *severalTokens) Hints() []string { return e.list }

// planNew decides whether anything is made, and with which names.
func (r *resealing) planNew(h *tpm2.Handler) error {
	a, p, old := r.app, r.plan, r.old
	if r.ifNeeded && old.State.Fits() {
		return nil
	}
	label := a.options.label
	keep := r.keepOld != ""
	if keep && label == "" {
		label = h.OSLabel()
	}
	oldLabel := ""
	if keep && r.keepOld != keepSame {
		oldLabel = r.keepOld
	}
	for _, text := range []string{label, oldLabel} {
		if text == "" {
			continue
		}
		if err := tokens.CheckLabel(text); err != nil {
			return err
		}
	}
	e := &resealer{handler: h, old: old.Token, keep: keep}
	p.renames = map[int]string{}
	if oldLabel != "" {
		p.renames[old.Token.Keyslots[0]] = oldLabel
	}
	compat, err := a.planner().compatOf(e)
	if err != nil {
		return err
	}
	p.enroller, p.priority = e, luks2.PriorityNormal
	p.request = &tokens.EnrollRequest{Volume: p.forTokens(), Label: label, Compat: compat}
	if p.what, err = e.Plan(p.request); err != nil {
		return fmt.Errorf("%s: %w", tokens.SlotText(old.Token.Keyslots[0], "tpm2", old.Label), err)
	}
	return nil
}

// planDrops adds the slots of --drop-dead and --drop= to the wipe. The slot that is
// re-sealed is replaced anyway.
func (r *resealing) planDrops(states []tpm2.TokenState) error {
	p, old := r.plan, r.old
	for _, label := range r.drop {
		if !slices.ContainsFunc(states, func(s tpm2.TokenState) bool { return s.Label == label }) {
			return usagef("--drop=%s: no TPM2 keyslot has this label", label)
		}
	}
	for _, s := range states {
		if s.Token.ID == old.Token.ID && p.enroller != nil && r.keepOld == "" {
			continue
		}
		if r.dropDead && s.State.Dead() || slices.Contains(r.drop, s.Label) {
			p.addWipe(s.Token.Keyslots[0])
		}
	}
	return nil
}

// renewer is an enroller that makes a token in place of another. It is told
// which token opened the volume, and with which PIN, so that the same PIN is not
// asked for twice.
type renewer interface {
	enroller
	opened(token int, pin secret.Secret)
	// replaced is the token as it is.
	replaced() luks2.Token
	// renewal is what it says it demands and what the new one would.
	renewal(ctx context.Context, req *tokens.EnrollRequest) (*tpm2.Renewal, error)
	// did says in a word or two what became of the token.
	did() string
	// vouch is called when somebody with the volume key vouches for that.
	vouch()
}

var (
	_ renewer = (*resealer)(nil)
	_ renewer = (*pinChanger)(nil)
)

// resealer is the enroller of the reseal command.
type resealer struct {
	handler *tpm2.Handler
	old     luks2.Token
	keep    bool
	pin     secret.Secret // borrowed, empty if it has to be asked for

	authentic bool
}

func (r *resealer) opened(token int, pin secret.Secret) {
	if token == r.old.ID {
		r.pin = pin
	}
}

func (r *resealer) replaced() luks2.Token { return r.old }

func (r *resealer) did() string { return "Re-sealed" }

func (r *resealer) vouch() { r.authentic = true }

func (r *resealer) renewal(ctx context.Context, req *tokens.EnrollRequest) (*tpm2.Renewal, error) {
	return r.handler.Renewal(ctx, r.request(req))
}

func (r *resealer) request(req *tokens.EnrollRequest) *tpm2.ResealRequest {
	return &tpm2.ResealRequest{Volume: req.Volume, Token: r.old, Compat: req.Compat, Label: req.Label, KeepOld: r.keep, Authentic: r.authentic}
}

// Plan says which token is renewed and what the new one will demand.
func (r *resealer) Plan(req *tokens.EnrollRequest) (string, error) {
	n, err := r.renewal(context.Background(), req)
	if err != nil {
		return "", err
	}
	state := "for the present state"
	if n.Values {
		state = "for the given values"
	}
	if r.keep {
		return fmt.Sprintf("TPM2, beside keyslot %d, which stays, %s: %s", r.old.Keyslots[0], state, n.New), nil
	}
	return fmt.Sprintf("TPM2, replacing keyslot %d, %s: %s", r.old.Keyslots[0], state, n.New), nil
}

// Enroll makes the new token.
func (r *resealer) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	return r.handler.Reseal(ctx, r.request(req), &typedOnce{UI: ui, pin: r.pin})
}
