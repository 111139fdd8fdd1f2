package main

import (
	"cmp"
	"encoding/json"
	"io"
	"strconv"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/tokens"
	"luksmith/tokens/recovery/escrow"
)

// reporter says what became of a change, to people or as JSON.
type reporter struct {
	out    *cli.Stream
	msg    *cli.Messages
	json   cli.JSONMode
	types  tokens.Set
	tree   blockTree
	root   string // of the file system whose initrd is meant
	header string // --header=

	crypttab string // --write-crypttab=
}

func (a *app) reporter() *reporter {
	return &reporter{out: a.out, msg: a.msg, json: a.options.json, types: a.enrolling, tree: a.tree, root: a.root, header: a.options.header, crypttab: a.options.crypttab}
}

// report says what was done and what comes next.
func (r *reporter) report(out *outcome) error {
	if r.json.On() {
		return r.reportJSON(out)
	}
	w := r.msg.Err
	if out.backup != "" {
		w.Linef("%s", copiedText(out.backup))
	}
	r.tellCrypttab(out)
	if e := out.enrolled; e != nil {
		r.reportEnrolled(out.plan, e)
	}
	for _, s := range out.wiped {
		w.Linef("Wiped %s.", s.String())
	}
	return nil
}

// reportEnrolled says what there is to know first and the result last, where it stays
// in sight.
func (r *reporter) reportEnrolled(p *plan, e *enrolled) {
	w := r.msg.Err
	if e.result.Unchanged != nil {
		r.reportUnchanged(p, e)
		return
	}
	for _, note := range e.result.Notes {
		r.msg.Warning(note)
	}
	if p.advice != "" {
		r.msg.Warning(p.advice)
	}
	old, renewed := p.enroller.(renewer)
	if !renewed && len(e.result.Crypttab) > 0 && r.crypttab == "" {
		r.suggestCrypttab(p, e.result)
	}
	what, replaced := cmp.Or(e.result.Made, p.what), e.replaced
	switch {
	case renewed && len(replaced) == 1: // its number and name are the same
		w.Linef("%s %s of %s; the old key is wiped", old.did(), p.tokenText(old.replaced()), p.path)
		replaced = nil
	case renewed:
		w.Linef("%s %s of %s: keyslot %d stands beside it", old.did(), p.tokenText(old.replaced()), p.path, e.slot)
	default:
		w.Linef("Enrolled %s%s of %s: %s", quoted(e.result.Label), e.slotsText(), p.path, what)
	}
	if renewed && e.result.Label != tokens.Label(old.replaced().Raw) {
		w.Linef("  label:     %s", e.result.Label)
	}
	if need := strings.Join(e.result.Requires, ", "); !strings.HasPrefix(what, need) && (renewed || !strings.HasSuffix(what, need)) {
		w.Linef("  to unlock: %s", need)
	}
	for _, slot := range replaced {
		if slot == e.slot {
			w.Linef("  replaces:  the token that was there (wiped)")
			continue
		}
		w.Linef("  replaces:  keyslot %d (wiped)", slot)
	}
}

// quoted is a label as it stands before its keyslot; "" without one.
func quoted(label string) string {
	if label == "" {
		return ""
	}
	return strconv.QuoteToGraphic(label) + ", "
}

// reportUnchanged says whether a token that was found in place opened the volume, and
// no more than that.
func (r *reporter) reportUnchanged(p *plan, e *enrolled) {
	s, _ := p.slot(e.slot)
	name := tokens.SlotText(e.slot, s.Kind, s.Label)
	if e.proven {
		r.msg.Err.Linef("Already enrolled and working: %s of %s. Nothing was written.", name, p.path)
		return
	}
	doubt := ""
	if e.result.Doubt != "" {
		doubt = ", which does not open in the present state"
	}
	r.msg.Err.Linef("Already enrolled: %s of %s%s. Nothing was written.", name, p.path, doubt)
}

// enrolledView and changeView are --json of an enrolment or wipe.
type enrolledView struct {
	Slot      int      `json:"slot"`
	Token     *int     `json:"token"`
	Type      string   `json:"type"`
	Label     string   `json:"label"`
	Requires  []string `json:"requires"`
	Unchanged bool     `json:"unchanged"`
	Proven    bool     `json:"proven"` // gave the volume key in this call
	Replaced  []int    `json:"replaced"`
	Crypttab  string   `json:"crypttab,omitempty"`
	Notes     []string `json:"notes"`
}

type changeView struct {
	placeView
	UUID     string        `json:"uuid"`
	OpenedBy *int          `json:"opened_by"` // keyslot
	Enrolled *enrolledView `json:"enrolled"`
	// RecoveryKey is filled in after encoding: the key must not pass through the
	// encoder's buffers. It stands before what is only known after the wipe.
	RecoveryKey json.RawMessage `json:"recovery_key,omitempty"`
	Escrow      any             `json:"escrow,omitempty"` // an escrow.Envelope
	EscrowFile  string          `json:"escrow_file,omitempty"`
	Wiped       []wipeView      `json:"wiped"`
	Backup      string          `json:"backup,omitempty"`
	Error       *cli.ErrorView  `json:"error,omitempty"` // that came after the recovery key was printed
	// CrypttabChange is what --write-crypttab did.
	CrypttabChange *crypttab.Changed `json:"crypttab_change,omitempty"`
}

func (r *reporter) view(out *outcome) changeView {
	p := out.plan
	v := changeView{placeView: p.place(), UUID: p.header.UUID, Wiped: []wipeView{}, Backup: out.backup, CrypttabChange: out.crypttab}
	if out.opened >= 0 {
		v.OpenedBy = &out.opened
	}
	for _, s := range out.wiped {
		v.Wiped = append(v.Wiped, wipeView{s.ID, s.Kind, s.Label})
	}
	e := out.enrolled
	if e == nil {
		return v
	}
	v.Enrolled = &enrolledView{Slot: e.slot, Type: tokens.KindPassword, Label: e.result.Label, Unchanged: e.result.Unchanged != nil, Proven: e.proven,
		Requires: append([]string{}, e.result.Requires...), Replaced: append([]int{}, e.replaced...), Notes: append([]string{}, e.result.Notes...)}
	if s, ok := p.slot(e.slot); ok && v.Enrolled.Unchanged {
		v.Enrolled.Label = s.Label
	}
	switch t := p.enroller.(type) {
	case tokens.Enroller:
		v.Enrolled.Type, v.Enrolled.Token = t.Name(), &e.token
	case renewer:
		v.Enrolled.Type, v.Enrolled.Token = r.types.ByType(t.replaced().Type).Name(), &e.token
	}
	if len(e.result.Crypttab) > 0 {
		v.Enrolled.Crypttab, _ = r.crypttabLine(p, e.result)
	}
	if h := out.handout; h != nil && h.envelope != nil {
		if v.EscrowFile = h.app.options.escrowFile; v.EscrowFile == "" {
			v.Escrow = h.envelope
		}
	}
	return v
}

// keyMark stands where the recovery key, or its envelope, goes.
const keyMark = `"luksmith-recovery-key-goes-here"`

// reportJSON prints the document, or what is missing of one that was begun.
func (r *reporter) reportJSON(out *outcome) error {
	if out.handout != nil && out.handout.begun {
		return r.endDocument(out, nil)
	}
	return r.out.JSON(r.json, r.view(out))
}

// beginDocument prints the document up to the recovery key or its envelope, before
// anything old is wiped. The key comes from locked memory.
func (r *reporter) beginDocument(out *outcome) error {
	before, _, err := r.splitDocument(out, nil)
	if err != nil {
		return err
	}
	r.out.BeginDocument()
	if _, err := io.WriteString(r.out.Raw(), before); err != nil {
		return err
	}
	if out.handout.printsEscrow() {
		return r.writeEnvelope(out.handout.envelope)
	}
	for _, piece := range [][]byte{{'"'}, out.enrolled.result.Passphrase.Bytes(), {'"'}} { // modhex and dashes need no escape
		if _, err := r.out.Raw().Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// writeEnvelope writes it as a value within the document.
func (r *reporter) writeEnvelope(e *escrow.Envelope) error {
	var text strings.Builder
	if err := cli.StreamTo(&text).JSON(cli.JSONShort, e); err != nil {
		return err
	}
	_, err := io.WriteString(r.out.Raw(), strings.TrimSuffix(text.String(), "\n"))
	return err
}

// endDocument prints what stands behind the recovery key, also after an error, which
// it holds then, so that the document is complete.
func (r *reporter) endDocument(out *outcome, failed error) error {
	_, after, err := r.splitDocument(out, failed)
	if err != nil {
		return err
	}
	_, err = io.WriteString(r.out.Raw(), after)
	return err
}

// splitDocument is the text before and behind the recovery key or its envelope.
func (r *reporter) splitDocument(out *outcome, failed error) (before, after string, err error) {
	v := r.view(out)
	if failed != nil {
		v.Error = cli.ViewError(cli.ExitStatus(failed), failed)
	}
	if mark := json.RawMessage(keyMark); out.handout.printsEscrow() {
		v.Escrow = mark
	} else {
		v.RecoveryKey = mark
	}
	var text strings.Builder
	if err := cli.StreamTo(&text).JSON(r.json, v); err != nil {
		return "", "", err
	}
	before, after, _ = strings.Cut(text.String(), keyMark)
	return before, after, nil
}

// reportAll is report for several volumes; with --json one list.
func (r *reporter) reportAll(outcomes []*outcome) error {
	if !r.json.On() {
		for _, out := range outcomes {
			if err := r.report(out); err != nil {
				return err
			}
		}
		return nil
	}
	views := make([]changeView, len(outcomes))
	for i, out := range outcomes {
		views[i] = r.view(out)
	}
	return r.out.JSON(r.json, views)
}
