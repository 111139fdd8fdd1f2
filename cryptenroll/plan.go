package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// enroller is the part of tokens.Enroller that a plan needs; a passphrase has it
// too, although it makes no token.
type enroller interface {
	Plan(req *tokens.EnrollRequest) (string, error)
	Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error)
}

// plan is what one call will do to one volume. It is made without asking anybody
// and without writing; --dry-run prints it, and the same value is then executed.
type plan struct {
	path   string
	device *luks2.Device
	header *luks2.Header
	slots  []tokens.Slot

	enroller enroller // nil: nothing is enrolled
	request  *tokens.EnrollRequest
	what     string // the enroller's word for it
	priority luks2.Priority
	renames  map[int]string // labels that the update gives to slots that stay
	// needsKey says whether the volume has to be opened: to enrol, or to prove
	// before a wipe that another keyslot opens it.
	needsKey bool
	closed   []int // tokens that are known not to open now

	wipe     []tokens.Slot // ascending
	orphans  []int         // tokens without keyslot that a wipe of their type takes along
	warnings []string
}

// wiped reports whether a slot is to be wiped.
func (p *plan) wiped(slot int) bool {
	return slices.ContainsFunc(p.wipe, func(s tokens.Slot) bool { return s.ID == slot })
}

// addWipe adds a slot to those that are to be wiped.
func (p *plan) addWipe(slot int) {
	for _, s := range p.slots {
		if s.ID == slot && !p.wiped(slot) {
			p.wipe = append(p.wipe, s)
		}
	}
}

// empty reports whether executing the plan would do nothing.
func (p *plan) empty() bool { return p.enroller == nil && len(p.wipe) == 0 && len(p.orphans) == 0 }

// openVolume opens the device and reads its header; with write it also refuses
// volumes that must not be written.
func (a *app) openVolume(ctx context.Context, path string, write bool) (*plan, error) {
	dev, err := luks2.Open(path, &luks2.OpenOptions{Header: a.options.header, ReadOnly: !write})
	if err != nil {
		return nil, cli.WrongDevice(a.explainDenial(err))
	}
	h, err := dev.Header(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, cli.WrongDevice(a.explainDenial(err))
	case err != nil:
		return nil, err
	}
	if write {
		if err := h.WriteObstacle(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return &plan{path: path, device: dev, header: h, slots: tokens.Slots(a.unlocking, h)}, nil
}

// explainDenial adds a hint for those who are not root.
func (a *app) explainDenial(err error) error {
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	return tokens.WithHint(err, "try again as root: sudo "+a.name+" …")
}

// makePlan is everything that can be found out and refused before anybody is
// asked and anything is written.
func (a *app) makePlan(ctx context.Context, path string) (*plan, error) {
	p, err := a.openVolume(ctx, path, true)
	if err != nil {
		return nil, err
	}
	if err := a.checkUnlockSlot(p); err != nil {
		return nil, err
	}
	if err := a.planEnrollment(p); err != nil {
		return nil, err
	}
	if err := a.planWipe(ctx, p); err != nil {
		return nil, err
	}
	p.needsKey = p.enroller != nil || len(p.wipe) > 0 && !a.systemd && !a.options.unprovenWipe
	a.warnAhead(p)
	return p, nil
}

// checkUnlockSlot refuses a keyslot that is not there before anybody is asked for
// its key.
func (a *app) checkUnlockSlot(p *plan) error {
	slot := a.options.unlock.slot
	if _, ok := p.header.Keyslot(slot); slot == luks2.AnySlot || ok {
		return nil
	}
	return fmt.Errorf("%s: keyslot %d: %w", p.path, slot, luks2.ErrNoKeyslot)
}

func (a *app) planEnrollment(p *plan) (err error) {
	o := &a.options
	switch {
	case o.changePIN:
		if p.enroller, err = a.planPINChange(p); err != nil {
			return err
		}
	case o.password:
		p.enroller = &passphraseEnroller{asker: a.asker(), kdf: &o.kdf}
	case o.enrollWith != nil:
		p.enroller = o.enrollWith
	default:
		return o.refuseWithoutEnrollment()
	}
	if o.label != "" {
		if err := tokens.CheckLabel(o.label); err != nil {
			return fmt.Errorf("--label=: %w", err)
		}
	}
	if p.priority, err = parsePriority(o.priority); err != nil {
		return err
	}
	compat, err := a.compatOf(p.enroller)
	if err != nil {
		return err
	}
	p.request = &tokens.EnrollRequest{Volume: p.volume(), Label: o.label, Compat: compat}
	if p.what, err = p.enroller.Plan(p.request); err != nil {
		return err
	}
	return o.refuseUnusedRecovery(p.enroller)
}

// compatOf is the oldest systemd that has to read the new token. By default a token
// in the place of another keeps its form: what reads the old one reads the new one.
func (a *app) compatOf(e enroller) (int, error) {
	compat, err := parseCompat(a.options.compat, a.root)
	if r, ok := e.(renewer); ok && a.options.compat == "auto" {
		compat = max(compat, tpm2.OldestSystemd(r.replaced().Raw))
	}
	return compat, err
}

// volume is what token types may know of the volume.
func (p *plan) volume() tokens.Volume {
	return tokens.Volume{UUID: p.header.UUID, Device: p.path, Label: p.header.Label, Tokens: p.header.Tokens}
}

// given is an option and whether it stood on the command line.
type given struct {
	name string
	set  bool
}

// refuseWithoutEnrollment refuses options that only have a meaning with one.
func (o *options) refuseWithoutEnrollment() error {
	for _, g := range []given{{"--label=", o.label != ""}, {"--priority=", o.priority != ""}, {"--recovery-sheet=", o.sheet != ""},
		{"--recovery-confirm", o.confirm}, {"--new-pin-file=", o.newPINFile != ""}} {
		if g.set {
			return usagef("%s needs something to enrol", g.name)
		}
	}
	return nil
}

// refuseWithoutChange refuses options that only have a meaning when something is
// enrolled or wiped, so that a forgotten word is not taken for a list.
func (o *options) refuseWithoutChange() error {
	for _, g := range []given{{"--backup=", o.backup != ""}, {"--dry-run", o.dryRun}, {"--yes", o.yes}, {"--force-unproven-wipe", o.unprovenWipe}} {
		if g.set {
			return usagef("%s needs something to enrol or wipe", g.name)
		}
	}
	return o.refuseWithoutEnrollment()
}

// warnAhead collects what the person should know before saying yes.
func (a *app) warnAhead(p *plan) {
	left := slices.DeleteFunc(slices.Clone(p.slots), func(s tokens.Slot) bool { return p.wiped(s.ID) || !s.Usable() })
	has := func(kind string) bool {
		return slices.ContainsFunc(left, func(s tokens.Slot) bool { return s.Kind == kind })
	}
	enrolls := func(name string) bool {
		e, ok := p.enroller.(tokens.Enroller)
		return ok && e.Name() == name
	}
	switch {
	case has("recovery") || enrolls("recovery"):
	case len(p.wipe) > 0 || p.enroller != nil && !a.options.password:
		p.warnings = append(p.warnings, "no recovery key is enrolled: add one with --recovery-key, on paper it outlives every device")
	}
}

// planView is the plan for people and for --json.
type planView struct {
	Device   string     `json:"device"`
	UUID     string     `json:"uuid"`
	Enroll   string     `json:"enrol,omitempty"`
	Label    string     `json:"label,omitempty"`
	Compat   int        `json:"compat,omitempty"`
	Unlock   bool       `json:"unlock"`
	Wipe     []wipeView `json:"wipe"`
	Warnings []string   `json:"warnings"`
}

type wipeView struct {
	Slot  int    `json:"slot"`
	Type  string `json:"type"`
	Label string `json:"label,omitempty"`
}

func (p *plan) view() planView {
	v := planView{Device: p.path, UUID: p.header.UUID, Enroll: p.what, Unlock: p.needsKey,
		Wipe: []wipeView{}, Warnings: append([]string{}, p.warnings...)}
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
	line("%s, UUID %s", v.Device, v.UUID)
	if v.Unlock {
		line("  open the volume with a key that it has")
	}
	if v.Enroll != "" {
		line("  enrol: %s", v.Enroll)
	}
	for _, s := range v.Wipe {
		line("  wipe: %s", slotText(s.Slot, s.Type, s.Label))
	}
	for _, text := range v.Warnings {
		line("  warning: %s", text)
	}
	if v.Enroll == "" && len(v.Wipe) == 0 {
		line("  nothing to do")
	}
}

// slotText names a keyslot in a sentence: `keyslot 2 (tpm2, "laptop")`.
func slotText(slot int, kind, label string) string {
	if label == "" {
		return fmt.Sprintf("keyslot %d (%s)", slot, kind)
	}
	return fmt.Sprintf("keyslot %d (%s, %q)", slot, kind, label)
}

// slotsText joins several for a question.
func slotsText(slots []tokens.Slot) string {
	texts := make([]string, len(slots))
	for i, s := range slots {
		texts[i] = slotText(s.ID, s.Kind, s.Label)
	}
	return strings.Join(texts, ", ")
}
