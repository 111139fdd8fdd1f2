package luks2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2/internal/jsondoc"
	"luksmith/luks2/secret"
)

// Tx is a change to a header that is being put together, see [Device.Update]. A
// method that returns an error has changed nothing. A Tx must not be used after
// its function has returned, nor by several goroutines.
type Tx struct {
	ctx  context.Context
	base *loaded
	shop *workshop

	// final is the document to end with. grown has what final adds and still all
	// that it takes away: the state on the disk while key areas are overwritten.
	grown, final     *jsondoc.Doc
	start            *jsondoc.Doc // both of them at the beginning
	label, subsystem string
	rewrite          bool

	added   []placed
	removed []Area
}

// placed is a prepared keyslot with its number and area.
type placed struct {
	*prepared
	id     int
	offset uint64
}

func newTx(ctx context.Context, base *loaded, shop *workshop) (*Tx, error) {
	start := base.chosen.view.doc.Clone()
	if err := dropLeftovers(start); err != nil {
		return nil, err
	}
	return &Tx{
		ctx: ctx, base: base, shop: shop, start: start, grown: start.Clone(), final: start.Clone(),
		label: base.chosen.bin.label(), subsystem: base.chosen.bin.subsystem(),
	}, nil
}

// dropLeftovers removes members of a kdf object that belong to another type, as
// libcryptsetup does when it meets them (luks2_keyslot_repair): older versions
// reject a header that has them.
func dropLeftovers(doc *jsondoc.Doc) error {
	var cuts []jsondoc.Cut
	for _, o := range newSection(doc.Root(), "keyslots").objects {
		kdf := o.Get("kdf")
		if !o.Get("type").Is("luks2") {
			continue
		}
		if known := kdfMembers(kdf); known != nil {
			cuts = append(cuts, jsondoc.Cut{List: kdf, Drop: func(m jsondoc.Value) bool { return !slices.Contains(known, m.Name()) }})
		}
	}
	_, err := doc.Prune(cuts...)
	return err
}

// kdfMembers are those of a type that is known.
func kdfMembers(kdf jsondoc.Value) []string {
	switch kind, _ := kdf.Get("type").Text(); KDFType(kind) {
	case KDFPBKDF2:
		return []string{"type", "salt", "hash", "iterations"}
	case KDFArgon2i, KDFArgon2id:
		return []string{"type", "salt", "time", "memory", "cpus"}
	}
	return nil
}

func (tx *Tx) view(doc *jsondoc.Doc) *view {
	v := tx.base.chosen.view
	return newView(doc, v.hdrSize, v.deviceSize)
}

// Header is the header as it will be, with what the methods have changed so far.
func (tx *Tx) Header() *Header {
	h := tx.base.header()
	h.Label, h.Subsystem = tx.label, tx.subsystem
	h.Keyslots, h.Tokens, h.Segments, h.Digests = nil, nil, nil, nil
	tx.view(tx.final).decode(h)
	return h
}

// edit applies changes to the final document and, unless they take something
// away, to the grown one. Either all of them happen or none.
func (tx *Tx) edit(takesAway bool, change func(*jsondoc.Doc) error) error {
	if tx.ctx.Err() != nil {
		return context.Cause(tx.ctx)
	}
	final, grown := tx.final.Clone(), tx.grown.Clone()
	if err := change(final); err != nil {
		return err
	}
	if !takesAway {
		if err := change(grown); err != nil {
			return err
		}
	}
	if err := tx.view(final).fits(); err != nil {
		return err
	}
	tx.final, tx.grown = final, grown
	return nil
}

// AddKeyslot adds a keyslot that passphrase opens, in the lowest free number, for
// a key that [Device.OpenKeyslot] or [Format] gave. Both are borrowed. The key
// derivation runs here, before any lock is taken. The area is encrypted with
// aes-xts-plain64.
//
// Errors: [ErrChanged] if the key was found on another volume, [SpaceError],
// [CostError], [ErrNoMemory].
func (tx *Tx) AddKeyslot(vk *VolumeKey, passphrase secret.Secret, kdf KDF) (slot int, err error) {
	h := tx.Header()
	if tx.shop.rehearsal {
		vk = h.anyKey()
		defer vk.Wipe()
	}
	d, ok := h.Digest(vk.Digest)
	if !ok || !tx.shop.rehearsal && (tx.base.identity() != vk.of || d.sum() != vk.by) {
		return 0, fmt.Errorf("adding a keyslot: %w", ErrChanged)
	}
	grown := tx.view(tx.grown)
	if slot, err = grown.keyslots.freeNumber(MaxKeyslots); err != nil {
		return 0, err
	}
	offset, err := grown.freeArea(areaSize(vk.Key.Len()))
	if err != nil {
		return 0, err
	}
	p, err := tx.shop.keyslot(len(tx.added), vk.Key, passphrase, kdf)
	if err != nil {
		return 0, err
	}
	k := p.keyslot
	k.Area.Offset = offset
	err = tx.edit(false, func(doc *jsondoc.Doc) error {
		if err := doc.Set(k.json(), "keyslots", name(slot)); err != nil {
			return err
		}
		return doc.Append(jsondoc.Quote(name(slot)), "digests", name(d.ID), "keyslots")
	})
	if err != nil {
		return 0, err
	}
	tx.added = append(tx.added, placed{p, slot, offset})
	return slot, nil
}

// RemoveKeyslot overwrites the key area of a keyslot and removes it from the
// header, and its number from digests and tokens. A token that names no other
// stays, with an empty list; RemoveToken removes it in the same transaction.
// Whether the volume can still be opened is for the caller to know.
func (tx *Tx) RemoveKeyslot(slot int) error { return tx.removeKeyslot(slot, nil) }

// RemoveKeyslotAndTokens is RemoveKeyslot and takes every token along that names
// this keyslot alone. However many they are, the document is read a fixed number
// of times.
func (tx *Tx) RemoveKeyslotAndTokens(slot int) error {
	alone := make(map[string]bool)
	for _, t := range tx.Header().Tokens {
		if len(t.Keyslots) == 1 && t.Keyslots[0] == slot {
			alone[name(t.ID)] = true
		}
	}
	return tx.removeKeyslot(slot, alone)
}

func (tx *Tx) removeKeyslot(slot int, tokens map[string]bool) error {
	k, ok := tx.Header().Keyslot(slot)
	if !ok {
		return &KeyslotError{slot, ErrNoKeyslot}
	}
	for _, p := range tx.added {
		if p.id == slot {
			return &KeyslotError{slot, errors.New("was added in the same transaction")}
		}
	}
	err := tx.edit(true, func(doc *jsondoc.Doc) error { return forgetKeyslot(doc, name(slot), tokens) })
	if err != nil {
		return err
	}
	tx.removed = append(tx.removed, k.Area)
	return nil
}

// forgetKeyslot removes a keyslot, some tokens, and its number from the other
// tokens and the digests. A digest that is left without keyslots and segments goes
// too (libcryptsetup LUKS2_digests_erase_unused).
func forgetKeyslot(doc *jsondoc.Doc, slot string, tokens map[string]bool) error {
	isSlot := func(v jsondoc.Value) bool { return v.Is(slot) }
	root := doc.Root()
	cuts := []jsondoc.Cut{
		{List: root.Get("keyslots"), Drop: func(v jsondoc.Value) bool { return v.Name() == slot }},
		{List: root.Get("tokens"), Drop: func(v jsondoc.Value) bool { return tokens[v.Name()] }},
	}
	unused := make(map[string]bool)
	for _, t := range root.Get("tokens").Members() {
		cuts = append(cuts, jsondoc.Cut{List: t.Get("keyslots"), Drop: isSlot})
	}
	for id, d := range root.Get("digests").Members() {
		list := d.Get("keyslots")
		cuts = append(cuts, jsondoc.Cut{List: list, Drop: isSlot})
		unused[id] = list.HasString(slot) && onlyString(list, slot) && d.Get("segments").Len() == 0
	}
	cuts = append(cuts, jsondoc.Cut{List: root.Get("digests"), Drop: func(v jsondoc.Value) bool { return unused[v.Name()] }})
	_, err := doc.Prune(cuts...)
	return err
}

// onlyString reports whether every element of an array is that string.
func onlyString(list jsondoc.Value, s string) bool {
	for e := range list.Elems() {
		if !e.Is(s) {
			return false
		}
	}
	return true
}

// AddToken adds a token under the lowest free number and returns it. t.Raw is the
// whole object; its "keyslots" is set to t.Keyslots, and its "type" to t.Type if
// that is not empty. Everything else stays byte for byte.
func (tx *Tx) AddToken(t Token) (id int, err error) {
	raw, err := tx.tokenJSON(t)
	if err != nil {
		return 0, err
	}
	if id, err = tx.freeToken(); err != nil {
		return 0, err
	}
	return id, tx.edit(false, func(doc *jsondoc.Doc) error { return doc.Set(raw, "tokens", name(id)) })
}

func (tx *Tx) freeToken() (int, error) {
	v := tx.view(tx.grown)
	return v.tokens.freeNumber(MaxTokens)
}

// tokenJSON is the object of a token as it will stand in the header.
func (tx *Tx) tokenJSON(t Token) (json.RawMessage, error) {
	h := tx.Header()
	names := []byte("[")
	for i, slot := range t.Keyslots {
		if _, ok := h.Keyslot(slot); !ok {
			return nil, fmt.Errorf("token of type %q: %w", t.Type, &KeyslotError{slot, ErrNoKeyslot})
		}
		if i > 0 {
			names = append(names, ',')
		}
		names = append(names, jsondoc.Quote(name(slot))...)
	}
	raw := t.Raw
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	var err error
	if t.Type != "" {
		raw, err = SetMember(raw, jsondoc.Quote(t.Type), "type")
	}
	if err == nil {
		raw, err = SetMember(raw, append(names, ']'), "keyslots")
	}
	if err != nil {
		return nil, fmt.Errorf("token of type %q: %w", t.Type, err)
	}
	return raw, nil
}

// ReplaceToken puts another object in place of a token; see AddToken for how
// t is read. t.ID is ignored.
func (tx *Tx) ReplaceToken(id int, t Token) error {
	old, ok := tx.Header().Token(id)
	if !ok {
		return fmt.Errorf("token %d: %w", id, ErrNoToken)
	}
	raw, err := tx.tokenJSON(t)
	if err != nil {
		return err
	}
	set := func(at int) func(*jsondoc.Doc) error {
		return func(doc *jsondoc.Doc) error { return doc.Set(raw, "tokens", name(at)) }
	}
	lost := slices.ContainsFunc(old.Keyslots, func(k int) bool { return !slices.Contains(t.Keyslots, k) })
	if !lost {
		return tx.edit(false, set(id))
	}
	// The keyslot that the old token names may be on its way out. As long as its
	// area is not overwritten both tokens stand, each naming one keyslot.
	spare, err := tx.freeToken()
	if err != nil {
		return err
	}
	if err := tx.edit(true, set(id)); err != nil {
		return err
	}
	return set(spare)(tx.grown)
}

// RemoveToken removes tokens. Their keyslots stay, see RemoveKeyslot. However many
// they are, the document is read once.
func (tx *Tx) RemoveToken(ids ...int) error {
	return tx.edit(true, func(doc *jsondoc.Doc) error { return dropTokens(doc, ids) })
}

func dropTokens(doc *jsondoc.Doc, ids []int) error {
	list, there, going := doc.Root().Get("tokens"), make(map[string]bool), make(map[string]bool)
	for id := range list.Members() {
		there[id] = true
	}
	for _, id := range ids {
		if going[name(id)] = true; !there[name(id)] {
			return fmt.Errorf("token %d: %w", id, ErrNoToken)
		}
	}
	_, err := doc.Prune(jsondoc.Cut{List: list, Drop: func(v jsondoc.Value) bool { return going[v.Name()] }})
	return err
}

// SetPriority says when a keyslot is tried; PriorityNormal removes the member.
func (tx *Tx) SetPriority(slot int, p Priority) error {
	if _, ok := tx.Header().Keyslot(slot); !ok {
		return &KeyslotError{slot, ErrNoKeyslot}
	}
	if p < PriorityIgnore || p > PriorityPrefer {
		return &KeyslotError{slot, fmt.Errorf("priority %d does not exist", p)}
	}
	return tx.edit(false, func(doc *jsondoc.Doc) error {
		if p == PriorityNormal {
			_, err := doc.Delete("keyslots", name(slot), "priority")
			return err
		}
		return doc.Set(json.RawMessage(name(int(p))), "keyslots", name(slot), "priority")
	})
}

// SetLabel sets the label and subsystem of the volume, each at most 47 bytes
// without NUL.
func (tx *Tx) SetLabel(label, subsystem string) error {
	for _, s := range []string{label, subsystem} {
		if len(s) >= lenLabel || slices.Contains([]byte(s), 0) {
			return fmt.Errorf("label %q is longer than %d bytes or has a NUL character", s, lenLabel-1)
		}
	}
	tx.label, tx.subsystem = label, subsystem
	return nil
}

// Rewrite makes Update write both copies even if nothing else changes, which
// repairs a damaged one.
func (tx *Tx) Rewrite() { tx.rewrite = true }

// SetMember returns a JSON object with one member changed or added; path leads to
// it through objects that exist. Everything else, such as order, white space and
// unknown members, stays byte for byte. Names are compared exactly. raw is not
// changed.
func SetMember(raw, value json.RawMessage, path ...string) (json.RawMessage, error) {
	if len(path) == 0 {
		return nil, errors.New("setting a member without a name")
	}
	doc, err := jsondoc.Parse(slices.Clone(raw))
	if err != nil {
		return nil, fmt.Errorf("reading JSON: %w", err)
	}
	if err := doc.Set(value, path...); err != nil {
		return nil, err
	}
	return doc.Bytes(), nil
}
