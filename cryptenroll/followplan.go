package main

import (
	"cmp"
	"context"
	"crypto/rsa"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"luksmith/internal/cli"
	"luksmith/internal/forecast"
	"luksmith/internal/gpt"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/eventlog"
)

// followPlan is what follow does to one volume.
type followPlan struct {
	*volume
	pcrs    []int // nil: chosen for each entry by its kind of boot chain
	compat  int
	tokens  []tpm2.BootToken
	present map[int][]byte
	states  []*followState
	machine string
	own     func(machine string) bool // is it, or was it, ours?

	key        *rsa.PrivateKey // nil: nothing is signed
	signed     []signedToken
	signatures int  // that were written
	signOnly   bool // no other keys are made

	left   []leftOver // that may be wiped
	made   []*enrolled
	wiped  []tokens.Slot
	opened int // keyslot that the volume was opened with, luks2.AnySlot before
	failed error
}

// followState is the state of the machine that a boot entry leads to.
type followState struct {
	entry    bootchain.Entry
	label    string
	foreign  bool // of another system: left alone
	extended bool // on another partition than the ESP
	pcrs     []int
	values   map[int][]byte   // nil when they are not known
	events   []eventlog.Event // that lead to them
	grade    bootchain.Grade
	reason   string // why there is no value, or no room
	running  bool   // it is the one that the machine is in
	slot     int    // keyslot for it, luks2.AnySlot without one
	made     bool   // in this call
	signed   bool   // by a signature in the token of the keyslot
	doubtful bool   // it came while the system did not run
	noRoom   bool   // reason is that the header is full
	// otherwise says that its initrd does otherwise about os-separator than the one
	// that runs, which nobody can tell before: it is beside the usual state.
	otherwise bool
	same      *followState // another entry with the same values, which has the key
}

func (s *followState) covered() bool {
	if s.same != nil {
		return s.same.covered()
	}
	return s.slot != luks2.AnySlot || s.made
}

// wanted reports whether a key has to be made.
func (s *followState) wanted() bool {
	return s.values != nil && s.same == nil && !s.signed && !s.covered() && s.reason == ""
}

// plan decides, from the header and the forecast alone.
func (f *following) plan(ctx context.Context, v *volume, l *outlook) (*followPlan, error) {
	h := f.app.tpm2()
	p := &followPlan{volume: v, tokens: h.BootTokens(v.tokensOf(h)), present: l.present, machine: l.Host.MachineID, own: l.Own, opened: luks2.AnySlot}
	var err error
	if p.pcrs, err = f.choosePCRs(v); err != nil {
		return nil, err
	}
	key, err := readFollowKey(f.app)
	if err != nil {
		return nil, err
	}
	if err := f.planSigned(ctx, p, key, l); err != nil {
		return nil, err
	}
	if p.signOnly = f.signsOnly(p); p.signOnly {
		p.pcrs = p.signed[0].pcrs
	}
	if p.compat, err = f.chooseCompat(v); err != nil {
		return nil, err
	}
	for i := range l.Next {
		p.states = append(p.states, p.state(&l.Next[i], l))
	}
	for i := range l.Next {
		if s := p.otherwise(&l.Next[i], p.states[i], l); s != nil {
			p.states = append(p.states, s)
		}
	}
	if p.signOnly {
		p.cover()
		return p, nil
	}
	p.left = p.leftOvers(l)
	if err := f.refuseWeaker(p); err != nil {
		return nil, err
	}
	if err := f.judgeSpace(ctx, p); err != nil {
		return nil, err
	}
	p.giveUpOldest()
	return p, nil
}

// choosePCRs are those of the option, else those of the first call. The header is not
// asked: whoever can write the disk can change what a token says.
func (f *following) choosePCRs(v *volume) ([]int, error) {
	h := f.app.tpm2()
	if h.WantsPIN() {
		return nil, tokens.WithHint(usagef("a key for a state to come cannot have a PIN: nobody is there to type it when it is made"), "leave --tpm2-with-pin= out")
	}
	pcrs, err := h.NamedPCRs()
	if err == nil && pcrs == nil {
		if w, ok := f.known(v.header.UUID); ok && w.PCRs != "" {
			if pcrs, err = pcrsOf(w.PCRs); err != nil {
				return nil, fmt.Errorf("follow.json, PCRs of %s: %w", v.path, err)
			}
		}
	}
	if err == nil && !predictable(pcrs) {
		return nil, usagef("PCRs %s: only those that are written before user space runs can be predicted, 0 to 9 and 11 to 14", numbers(pcrs))
	}
	return pcrs, err
}

// chooseCompat is the version of systemd of the option, else of an earlier call: the
// hooks have no options.
func (f *following) chooseCompat(v *volume) (int, error) {
	if w, _ := f.known(v.header.UUID); !namesCompat(f.app) && w.Compat != 0 {
		return w.Compat, nil
	}
	return parseCompat(f.app.options.compat, f.app.root)
}

func namesCompat(a *app) bool { return a.options.compat != "auto" }

// pcrsOf reads what numbers wrote.
func pcrsOf(text string) (list []int, err error) {
	for word := range strings.SplitSeq(text, "+") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// state compares an entry with the tokens of the volume.
func (p *followPlan) state(n *forecast.Next, l *outlook) *followState {
	s := &followState{entry: n.Entry, label: labelOf(&n.Entry), foreign: n.Other, pcrs: p.pcrs, slot: luks2.AnySlot}
	if s.foreign {
		s.grade, s.reason = bootchain.Unknown, "it belongs to another system on this machine"
		return s
	}
	if s.pcrs == nil {
		s.pcrs = n.Chosen()
	}
	s.values, s.grade, s.reason = valuesOf(n, s.pcrs)
	s.events = n.Events(s.pcrs)
	if s.values == nil {
		return s
	}
	s.reason = ""
	s.extended = onOtherPartition(&n.Entry, l)
	s.running = samePCRs(s.values, l.running(s.pcrs))
	for _, other := range p.states {
		if !other.doubtful && samePCRs(other.values, s.values) {
			s.same = other
			return s
		}
	}
	p.take(s, n)
	s.doubt(n, l)
	return s
}

// slotFor is the keyslot that opens under these values, luks2.AnySlot if there is none.
func (p *followPlan) slotFor(values map[int][]byte) int {
	for i := range p.tokens {
		if t := &p.tokens[i]; t.For(values) && len(t.Token.Keyslots) == 1 && !p.altered(t) {
			return t.Token.Keyslots[0]
		}
	}
	return luks2.AnySlot
}

// altered is as much as can be told without the volume key.
func (p *followPlan) altered(t *tpm2.BootToken) bool {
	s, ok := p.slot(t.Token.Keyslots[0])
	return !ok || s.Altered || !s.Usable()
}

func samePCRs(a, b map[int][]byte) bool {
	if a == nil || b == nil || len(a) != len(b) {
		return false
	}
	for n, value := range a {
		if string(b[n]) != string(value) {
			return false
		}
	}
	return true
}

// missing are the states that a key is to be made for: first the one that runs, then the
// newest ones, which are booted next. Where there is no room for all, the last go without.
func (p *followPlan) missing() (list []*followState) {
	for _, s := range p.states {
		if s.wanted() {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b *followState) int {
		return cmp.Or(order(a.running, b.running), order(!a.otherwise, !b.otherwise), gpt.CompareVersions(b.entry.ID, a.entry.ID))
	})
	return list
}

// keptPCRs are the PCRs for later calls; "" chooses them for each entry, which is so
// only where the entries have different kinds of boot chains.
func (p *followPlan) keptPCRs() string {
	if p.signOnly {
		return ""
	}
	pcrs := p.pcrs
	for _, s := range p.states {
		switch {
		case p.pcrs != nil || s.values == nil:
		case pcrs == nil:
			pcrs = s.pcrs
		case !slices.Equal(pcrs, s.pcrs):
			return ""
		}
	}
	return numbers(pcrs)
}

// refuseWeaker refuses to make, unasked, keys that open under less than every key of
// the volume demands so far. Where no token can be read, there may have been one with a
// PIN, which whoever can write the disk has spoilt.
func (f *following) refuseWeaker(p *followPlan) error {
	followed := f.followsPlain(p)
	stated := f.app.tpm2().StatesConditions() || followed
	withPIN := p.hasOther()
	for _, s := range p.missing() {
		within := func(t tpm2.BootToken) bool { return t.Plain && subset(t.PCRs, s.pcrs) }
		if slices.ContainsFunc(p.tokens, within) || stated && (!withPIN && p.tokens != nil || followed || saysNoPIN(f.app)) {
			continue
		}
		err := fmt.Errorf("%w: a key for %s would open without a person as soon as PCR %s have their values, which no keyslot of %s allows so far",
			cli.ErrRefused, s.label, numbers(s.pcrs), p.path)
		return tokens.WithHint(err, fmt.Sprintf("if that is wanted: cryptenroll follow --tpm2-pcrs=%s --tpm2-with-pin=no %s", numbers(s.pcrs), p.words()))
	}
	return nil
}

// followsPlain reports whether somebody has said, not in the header, that keys which open
// without a person are made for this volume, and did not put others in their place since.
func (f *following) followsPlain(p *followPlan) bool {
	w, ok := f.known(p.header.UUID)
	signs := w.PCRs == "" && w.Signed != ""
	return ok && !signs && p.pcrs != nil && (p.hasPlain() || !p.hasOther())
}

// hasOther reports whether there is a token with a PIN, the latch or a signed policy.
func (p *followPlan) hasOther() bool {
	return slices.ContainsFunc(p.tokens, func(t tpm2.BootToken) bool { return !t.Plain })
}

// saysNoPIN reports whether --tpm2-with-pin=no was given.
func saysNoPIN(a *app) bool { return a.tpm2().WithPIN == tpm2.PINNo }

func subset(part, of []int) bool {
	return !slices.ContainsFunc(part, func(n int) bool { return !slices.Contains(of, n) })
}
