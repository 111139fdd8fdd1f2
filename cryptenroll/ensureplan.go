package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"luksmith/internal/spec"
	"luksmith/luks2"
	"luksmith/tokens"
)

// action is what becomes of a keyslot, in the words of --json.
type action string

const (
	actionKept     action = "kept"
	actionMade     action = "made"
	actionReplaced action = "replaced" // made anew, the one that had the label is wiped
	actionChanged  action = "changed"  // its priority
	actionWiped    action = "wiped"
	actionRefused  action = "refused"
	actionSkipped  action = "skipped"
)

// item is one keyslot of a spec, or one of the volume that is not wanted, and what
// becomes of it.
type item struct {
	*entry // nil for one that is not wanted
	action action
	reason string
	slot   *tokens.Slot  // that has the label, nil without one
	others []tokens.Slot // have it too: they are of the same enrolment
	what   string        // that is made, in words
	err    error         // with refused
	result *enrolled     // with made and replaced, once that is done
	wiped  bool          // the one that was replaced is gone
	compat int
}

// proof is a keyslot that gave the volume key.
type proof struct {
	slot   luks2.Keyslot
	listed bool // it is one of the spec
}

// refuse notes why nothing can be done.
func (it *item) refuse(err error) {
	it.action, it.reason, it.err = actionRefused, firstLine(err), err
}

// survey decides what becomes of every keyslot. It asks nobody, writes nothing and
// uses up no try; passphrases in files and TPM2 tokens are tried.
func (e *ensuring) survey(ctx context.Context) error {
	for i := range e.spec.Keyslots {
		en, err := newEntry(&e.spec.Keyslots[i], e.app)
		if err != nil {
			return err
		}
		it := &item{entry: en}
		if err := e.judge(ctx, it); err != nil {
			return fmt.Errorf("keyslot %q of %s: %w", it.Label, e.volume.path, err)
		}
		e.items = append(e.items, it)
	}
	if err := e.planWipes(ctx); err != nil {
		return err
	}
	return e.system.survey(slices.ContainsFunc(append(e.items, e.wipes...), (*item).writes))
}

// judge decides about one entry. An error ends the run.
func (e *ensuring) judge(ctx context.Context, it *item) error {
	skip, err := e.requirement(ctx, it.Require)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		it.refuse(err)
		return nil
	case skip:
		it.action, it.reason = actionSkipped, "the machine lacks what it requires"
		return nil
	}
	found := e.volume.slotsCalled(it.Label)
	if len(found) > 1 && !it.takeTogether(e.volume, found) {
		it.refuse(tokens.WithHint(fmt.Errorf("%s has several keyslots called %q (%s)", e.volume.path, it.Label, slotNumbersOf(found)),
			"give each a label of its own: cryptenroll label DEVICE SLOT NAME"))
		return nil
	}
	if it.action = actionMade; len(found) > 0 {
		s, _ := e.volume.slot(found[0])
		it.slot = &s
		if err := e.compare(ctx, it); err != nil {
			return err
		}
	}
	return e.planNew(it)
}

// takeTogether notes the keyslots that one enrolment made besides the first, and reports
// false if they are not of one.
func (it *item) takeTogether(v *volume, found []int) bool {
	var list []luks2.Token
	it.others = nil
	for i, id := range found {
		s, _ := v.slot(id)
		if len(s.Tokens) != 1 {
			return false
		}
		list = append(list, s.Tokens[0])
		if i > 0 {
			it.others = append(it.others, s)
		}
	}
	first, _ := v.slot(found[0])
	h, ok := it.types.ByName(first.Kind).(tokens.Several)
	return ok && h.Together(list)
}

// slots are those that have the label.
func (it *item) slots() []tokens.Slot {
	if it.slot == nil {
		return nil
	}
	return append([]tokens.Slot{*it.slot}, it.others...)
}

// ids are their numbers.
func (it *item) ids() (list []int) {
	for _, s := range it.slots() {
		list = append(list, s.ID)
	}
	return list
}

// planNew has the enroller say what it would make.
func (e *ensuring) planNew(it *item) error {
	if it.action != actionMade && it.action != actionReplaced {
		return nil
	}
	pl := e.app.planner()
	compat, err := parseCompat(pl.o.compat, pl.root)
	if err != nil {
		return err
	}
	if it.handsOut() {
		if err := e.delivery(it).refusal(); err != nil {
			it.refuse(it.To.Wrap(err))
			return nil
		}
	}
	p := &plan{volume: e.volume, enroller: it.enroller(e.volume), request: it.request(e.volume, compat, it.ids())}
	it.what, err = pl.what(p)
	if err != nil {
		it.refuse(it.Wrap(err))
	}
	it.compat = p.request.Compat
	return nil
}

// compare decides whether the keyslot with the label is what the spec wants.
func (e *ensuring) compare(ctx context.Context, it *item) error {
	it.action = actionKept
	for _, s := range it.slots() {
		switch {
		case s.Kind != it.Type:
			it.replace("it is a keyslot of type " + s.Kind)
			return nil
		case !s.Usable() || s.Altered:
			it.replace(s.State())
			return nil
		}
	}
	if it.handler == nil || it.Type == spec.Recovery {
		return e.compareSecret(ctx, it)
	}
	return e.compareToken(ctx, it)
}

func (it *item) replace(reason string) { it.action, it.reason = actionReplaced, reason }

// compareSecret tries what the spec's file holds. One that is not there any more says
// nothing: a key that was taken to a safe place is right where it is.
func (e *ensuring) compareSecret(ctx context.Context, it *item) error {
	path, trim := it.source(e.volume)
	if path == "" {
		it.comparePriority()
		return nil
	}
	secret, err := readSource(ctx, path, trim)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		it.reason = path + " is not there to try it"
		it.comparePriority()
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		it.refuse(err)
		return nil
	}
	defer secret.Wipe()
	opens, err := e.volume.opensSlot(ctx, it.slot.ID, secret)
	if err != nil {
		return err
	}
	if !opens {
		it.replace("what is in " + path + " does not open it")
		return nil
	}
	e.proven = append(e.proven, proof{it.slot.Keyslot, true})
	it.comparePriority()
	return nil
}

// compareToken asks the handler what the token demands, and its device whether it
// would open.
func (e *ensuring) compareToken(ctx context.Context, it *item) error {
	t := it.slot.Tokens[0]
	if m, ok := it.handler.(tokens.Matcher); ok {
		compat, err := parseCompat(e.app.options.compat, e.app.root)
		if err != nil {
			return err
		}
		why, err := e.differs(m, it, compat, t)
		if err != nil {
			it.refuse(it.Wrap(err))
			return nil
		}
		if why != "" {
			it.replace(why)
			return nil
		}
	}
	if it.Rebind == spec.Always {
		it.replace("it is made anew at each call")
		return nil
	}
	it.comparePriority()
	return e.examine(ctx, it, t)
}

// differs is Differs for the systemd that planNew would choose.
func (e *ensuring) differs(m tokens.Matcher, it *item, compat int, t luks2.Token) (string, error) {
	for {
		why, err := it.differs(m, it.request(e.volume, compat, nil), t)
		newer, ok := errors.AsType[*tokens.NeedsSystemdError](err)
		if !ok || e.app.options.compat != "auto" || newer.Since <= compat {
			return why, err
		}
		compat = newer.Since
	}
}

// differs is Differs, or DiffersTogether.
func (it *item) differs(m tokens.Matcher, req *tokens.EnrollRequest, t luks2.Token) (string, error) {
	h, ok := m.(tokens.Several)
	if !ok {
		return m.Differs(req, t)
	}
	list := []luks2.Token{t}
	for _, s := range it.others {
		list = append(list, s.Tokens...)
	}
	return h.DiffersTogether(req, list)
}

// examine asks the device. One that is not there, or cannot tell, is no reason to make
// a token anew.
func (e *ensuring) examine(ctx context.Context, it *item, t luks2.Token) error {
	examiner, ok := it.handler.(tokens.Examiner)
	if !ok {
		return nil
	}
	found, err := examiner.Examine(ctx, e.volume.unlockRequest([]luks2.Token{t}, nil))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		it.reason = cmp.Or(it.reason, "its device was not asked: "+firstLine(err))
		return nil
	}
	for _, x := range found {
		switch {
		case x.Verdict == tokens.OpensAlone:
			e.proven = append(e.proven, proof{it.slot.Keyslot, true})
		case x.Renew != "" && it.Rebind != spec.Never:
			it.replace(firstLine(x.Err))
		case x.Err != nil:
			it.reason = cmp.Or(it.reason, firstLine(x.Err))
		}
	}
	return nil
}

// firstLine is an error in a list.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// comparePriority notes a priority that is not the one of the spec.
func (it *item) comparePriority() {
	if it.Priority.Value != "" && slices.ContainsFunc(it.slots(), func(s tokens.Slot) bool { return it.priority != s.Priority }) {
		it.action, it.reason = actionChanged, "its priority becomes "+it.Priority.Value
	}
}

// listed reports whether the spec wants a keyslot with this label.
func (e *ensuring) listed(label string) bool {
	return label != "" && slices.ContainsFunc(e.spec.Keyslots, func(k spec.Keyslot) bool { return k.Label == label })
}

func slotNumbersOf(ids []int) string {
	var list []luks2.Keyslot
	for _, id := range ids {
		list = append(list, luks2.Keyslot{ID: id})
	}
	return slotNumbers(list)
}

func slotsOf(types tokens.Set, h *luks2.Header) []tokens.Slot { return tokens.Slots(types, h) }
