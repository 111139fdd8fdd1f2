package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// resealOptions are those of the reseal command.
type resealOptions struct {
	slot     int
	ifNeeded bool
	keepOld  string // label for the old token; keepSame keeps its label
	dropDead bool
	drop     []string // labels
}

// keepSame is what --keep-old without a label means.
const keepSame = "\x00"

func (a *app) resealCommand() *cobra.Command {
	r := &resealOptions{slot: luks2.AnySlot}
	known := tokenFlags{}
	s := newSection("Re-seal")
	f := s.flags
	f.IntVar(&r.slot, "slot", luks2.AnySlot, "re-seal keyslot `N`; needed if several have a TPM2 token")
	f.BoolVar(&r.ifNeeded, "if-needed", false, "write nothing while the slot opens in the present state")
	f.StringVar(&r.keepOld, "keep-old", "", "leave the old slot as well, for a rollback, and call it `LABEL`")
	f.Lookup("keep-old").NoOptDefVal = keepSame
	f.BoolVar(&r.dropDead, "drop-dead", false, "wipe TPM2 slots that can never open again")
	f.StringSliceVar(&r.drop, "drop", nil, "wipe the TPM2 slots called `LABEL`")
	for _, opt := range a.enrolling.ByName("tpm2").Options() {
		if opt.Place&tokens.Enrolling != 0 && slices.Contains([]string{"tpm2-device", "tpm2-pcrs", "tpm2-signature", "tpm2-pcrlock"}, opt.Name) {
			opt.Action = tokens.Parameter
			if opt.Name == "tpm2-device" {
				opt.Help = "seal to this TPM: auto, list, a path or swtpm:path=SOCKET"
			}
			known.add(f, &tokenFlag{app: a, handler: a.enrolling.ByName("tpm2"), option: opt})
		}
	}
	a.sameTPM(known)
	f.StringVar(&a.options.label, "label", "", "call the new keyslot `NAME` (default: as before, with --keep-old the system's version)")
	f.StringVar(&a.options.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262")
	c := a.command("reseal [DEVICE]", "Bind a TPM2 slot to the present state of the machine",
		[]section{s, a.unlockSection(known), a.changeSection(), a.commonSection()},
		func(cmd *cobra.Command, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			return a.reseal(cmd.Context(), devices[0], r)
		})
	c.Args = arguments(0, 1)
	return c
}

// reseal is an enrolment whose enroller starts from a token that is there.
func (a *app) reseal(ctx context.Context, path string, r *resealOptions) error {
	p, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	h := a.enrolling.ByName("tpm2").(*tpm2.Handler)
	states, err := h.Check(ctx, a.unlockRequest(p, a.tokensOfKind(p, "tpm2"), nil))
	if err != nil {
		return err
	}
	old, err := r.choose(path, states)
	if err != nil {
		return err
	}
	if err := a.planReseal(p, h, old, r); err != nil {
		return err
	}
	if err := r.planDrops(p, states, old); err != nil {
		return err
	}
	a.tellStates(p, states, old)
	p.needsKey = p.enroller != nil || len(p.wipe) > 0 && !a.options.unprovenWipe
	if p.empty() {
		return a.reportUnneeded(p, old)
	}
	return a.carryOut(ctx, p)
}

// reportUnneeded says that --if-needed found nothing to do.
func (a *app) reportUnneeded(p *plan, old *tpm2.TokenState) error {
	slot := old.Token.Keyslots[0]
	if !a.options.json.On() {
		a.msg.Err.Linef("%s %s; nothing was written.", slotText(slot, "tpm2", old.Label), old.State)
		return nil
	}
	v := changeView{Device: p.path, UUID: p.header.UUID, Wiped: []wipeView{},
		Enrolled: &enrolledView{Slot: slot, Token: &old.Token.ID, Type: "tpm2", Label: old.Label, Unchanged: true, Requires: []string{}, Replaced: []int{}, Notes: []string{}}}
	for _, s := range p.slots {
		if s.ID == slot {
			v.Enrolled.Requires = append(v.Enrolled.Requires, needs(&s)...)
		}
	}
	return a.out.JSON(a.options.json, v)
}

// tellStates says why the token is re-sealed, and spares the unlocking those that
// are known not to open.
func (a *app) tellStates(p *plan, states []tpm2.TokenState, old *tpm2.TokenState) {
	for _, s := range states {
		if s.State == tpm2.Opens || s.State == tpm2.NeedsPIN {
			continue
		}
		p.closed = append(p.closed, s.Token.ID)
		if s.Token.ID == old.Token.ID && p.enroller != nil && !s.State.Fits() {
			a.msg.Err.Linef("%s: %v", slotText(s.Token.Keyslots[0], "tpm2", s.Label), s.Err)
		}
	}
}

// tokensOfKind are all tokens of a type on usable slots, whatever --unlock-slot=
// says.
func (a *app) tokensOfKind(p *plan, kind string) (list []luks2.Token) {
	for _, s := range p.slots {
		if s.Kind == kind && s.Usable() {
			list = append(list, s.Tokens...)
		}
	}
	return list
}

// choose finds the token that is meant: that of --slot=, the only one, or the only
// one that does not open now. Those that were left for a rollback are not meant, nor
// dead ones that are to be dropped while there are others.
func (r *resealOptions) choose(path string, states []tpm2.TokenState) (*tpm2.TokenState, error) {
	if r.slot != luks2.AnySlot {
		i := slices.IndexFunc(states, func(s tpm2.TokenState) bool { return s.Token.Keyslots[0] == r.slot })
		if i < 0 {
			return nil, usagef("keyslot %d of %s has no TPM2 token that can be used here", r.slot, path)
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
	case len(states) == 0:
		return nil, tokens.WithHint(fmt.Errorf("%s has no TPM2 token that can be used here", path), "enrol one: cryptenroll --tpm2-device=auto "+path)
	case len(meant) == 1, r.ifNeeded && len(closed) == 0:
		return meant[0], nil
	case len(closed) == 1:
		return closed[0], nil
	}
	var list []string
	for _, s := range meant {
		list = append(list, slotText(s.Token.Keyslots[0], "tpm2", s.Label)+" "+s.State.String())
	}
	return nil, tokens.WithHint(usagef("%s has %d TPM2 tokens: name one with --slot=N", path, len(meant)), strings.Join(list, "; "))
}

// planReseal decides whether anything is made, and with which names.
func (a *app) planReseal(p *plan, h *tpm2.Handler, old *tpm2.TokenState, r *resealOptions) error {
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
	compat, err := a.compatOf(e)
	if err != nil {
		return err
	}
	p.enroller, p.priority = e, luks2.PriorityNormal
	p.request = &tokens.EnrollRequest{Volume: p.volume(), Label: label, Compat: compat}
	p.what, err = e.Plan(p.request)
	return err
}

// planDrops adds the slots of --drop-dead and --drop= to the wipe. The slot that is
// re-sealed is replaced anyway.
func (r *resealOptions) planDrops(p *plan, states []tpm2.TokenState, old *tpm2.TokenState) error {
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

// renewer is an enroller that makes a token in the place of another. It is told
// which token opened the volume, and with which PIN, so that the same PIN is not
// asked for twice.
type renewer interface {
	enroller
	opened(token int, pin secret.Secret)
	// replaced is the token as it is.
	replaced() luks2.Token
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
}

func (r *resealer) opened(token int, pin secret.Secret) {
	if token == r.old.ID {
		r.pin = pin
	}
}

func (r *resealer) replaced() luks2.Token { return r.old }

// Plan says which token is renewed.
func (r *resealer) Plan(*tokens.EnrollRequest) (string, error) {
	if r.keep {
		return fmt.Sprintf("TPM2, as token %d, which stays, for the present state", r.old.ID), nil
	}
	return fmt.Sprintf("TPM2, in the place of token %d, for the present state", r.old.ID), nil
}

// Enroll makes the new token.
func (r *resealer) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	return r.handler.Reseal(ctx, &tpm2.ResealRequest{Volume: req.Volume, Token: r.old, Compat: req.Compat, Label: req.Label, KeepOld: r.keep},
		&typedOnce{UI: ui, pin: r.pin})
}

// pinChanger is the enroller of --tpm2-change-pin.
type pinChanger struct {
	handler  *tpm2.Handler
	old      luks2.Token
	verified bool // the old PIN opened the volume in this run
}

func (c *pinChanger) opened(token int, pin secret.Secret) {
	c.verified = token == c.old.ID && pin.Len() > 0
}

func (c *pinChanger) replaced() luks2.Token { return c.old }

// Plan says which token gets another PIN.
func (c *pinChanger) Plan(*tokens.EnrollRequest) (string, error) {
	return fmt.Sprintf("TPM2 with another PIN, in the place of token %d", c.old.ID), nil
}

// Enroll makes the new token.
func (c *pinChanger) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	return c.handler.ChangePIN(ctx, &tpm2.ChangePINRequest{Volume: req.Volume, Token: c.old, Compat: req.Compat, Verified: c.verified}, ui)
}

// planPINChange finds the one TPM2 token with a PIN, or that of --unlock-slot=.
func (a *app) planPINChange(p *plan) (*pinChanger, error) {
	var found []luks2.Token
	for _, s := range p.slots {
		if s.Kind == "tpm2" && s.Usable() && slices.Contains(s.Description.Requires, "PIN") &&
			(a.options.unlock.slot == luks2.AnySlot || a.options.unlock.slot == s.ID) {
			found = append(found, s.Tokens...)
		}
	}
	switch len(found) {
	case 0:
		return nil, usagef("--tpm2-change-pin: %s has no TPM2 token with a PIN that can be used here", p.path)
	case 1:
		return &pinChanger{handler: a.enrolling.ByName("tpm2").(*tpm2.Handler), old: found[0]}, nil
	}
	return nil, usagef("--tpm2-change-pin: %s has %d TPM2 tokens with a PIN: name one with --unlock-slot=N", p.path, len(found))
}
