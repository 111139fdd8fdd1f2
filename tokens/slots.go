package tokens

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"luksmith/luks2"
)

// The kinds of keyslots besides the names of handlers. systemd-cryptenroll prints
// the same words.
const (
	KindPassword = "password" // no token names it
	KindOther    = "other"    // a token of a type that nobody here knows
	KindConflict = "conflict" // tokens of several types
	// KindReencrypt is a keyslot that holds how far a re-encryption is, and no key.
	KindReencrypt = "reencrypt"
)

// Slot is a keyslot of a volume together with what its tokens make of it.
type Slot struct {
	luks2.Keyslot
	// Kind is the name of the handler of its token ("tpm2"), or one of the Kind
	// constants.
	Kind string
	// Handler is that of its token; nil if Kind is one of the constants.
	Handler Handler
	// Tokens name this slot, by number.
	Tokens []luks2.Token
	// Description is that of the token; zero without one.
	Description Description
	// Label is the user's name, from the token or, for slots without one of
	// ours, from the label token; "" for none. Untrusted text.
	Label string
	// Problem says why nothing can open the slot here; "" if it is usable: in a
	// digest of the data segment, of algorithms that this build has, and with a
	// passphrase, a recovery key or a token that this build can drive.
	Problem string
	// Skipped says why the programs that open volumes do not try the slot unless it
	// is named; "" if they do.
	Skipped string
	// Unbound says that the slot holds another key than that of the data, as
	// cryptsetup luksAddKey --unbound makes one: no way in, and not in the way.
	Unbound bool
	// unread says that Problem is only that nobody can tell what its tokens mean.
	unread bool
	// Altered says that the token does not demand any more what it was enrolled
	// with, as far as that can be told without the volume key: see
	// [Set.LooksAltered].
	Altered bool
}

// String is what people know the slot by: `keyslot 2 (tpm2, "laptop")`.
func (s *Slot) String() string { return SlotText(s.ID, s.Kind, s.Label) }

// SlotText names a keyslot in a sentence, by its kind and, if it has one, its label:
// `keyslot 2 (tpm2, "laptop")`.
func SlotText(slot int, kind, label string) string {
	if label == "" {
		return fmt.Sprintf("keyslot %d (%s)", slot, kind)
	}
	return fmt.Sprintf("keyslot %d (%s, %s)", slot, kind, strconv.QuoteToGraphic(label))
}

// Usable reports whether the slot can open the volume here, if it is named.
func (s *Slot) Usable() bool { return s.Problem == "" }

// WayIn reports whether the slot can open the volume and is tried by whoever opens it
// without being told which slot to try. Only such slots count as left when others are
// wiped.
func (s *Slot) WayIn() bool { return s.Usable() && s.Skipped == "" }

// State says in words what Problem and Skipped do: "usable" without either.
func (s *Slot) State() string {
	if s.Usable() && s.Altered {
		return AlteredText
	}
	return cmp.Or(s.Problem, s.Skipped, "usable")
}

// AlteredText is the state of a slot whose token was edited.
const AlteredText = "altered since it was enrolled"

// ByPerson reports whether a person can open the slot with something typed: a
// passphrase, or the key of a type that has no [Unlocker], such as a recovery key.
// Where nobody can tell what its tokens mean, a passphrase may open the slot all the
// same: its owner is not to be left without a question because of what somebody wrote
// beside it.
func (s *Slot) ByPerson() bool {
	switch {
	case s.unread:
		return true
	case !s.Usable():
		return false
	case s.Handler == nil:
		return true
	}
	_, unlocks := s.Handler.(Unlocker)
	return !unlocks
}

// Slots describes all keyslots of a volume, by number.
func Slots(set Set, h *luks2.Header) []Slot {
	labels, order := readLabels(h), h.PassphraseOrder()
	slots := make([]Slot, 0, len(h.Keyslots))
	for _, k := range h.Keyslots {
		s := Slot{Keyslot: k, Kind: KindPassword, Label: labels.of(&k)}
		if k.Type == KindReencrypt {
			s.Kind = KindReencrypt
		}
		for _, t := range h.TokensOf(k.ID) {
			s.add(set, h, t)
		}
		if err := h.KeyslotObstacle(k.ID); err != nil {
			s.Problem, s.unread = err.Error(), false
			_, known := h.Digest(k.Digest)
			s.Unbound = known && !h.OpensData(k.ID)
		}
		switch {
		case k.Priority == luks2.PriorityIgnore:
			s.Skipped = "tried only when it is named (priority ignore)"
		case s.unread && !slices.Contains(order, k.ID):
			s.Skipped = "tried with a passphrase only when it is named (a token of a device stands beside it)"
		}
		slots = append(slots, s)
	}
	return slots
}

// add counts a token of the slot. systemd ignores its own tokens unless they name
// exactly one slot, so that they leave the slot as it is.
func (s *Slot) add(set Set, h *luks2.Header, t luks2.Token) {
	s.Tokens = append(s.Tokens, t)
	handler := set.ByType(t.Type)
	if handler != nil && len(t.Keyslots) != 1 {
		return
	}
	kind := KindOther
	if handler != nil {
		kind = handler.Name()
	}
	if s.Kind != KindPassword {
		s.Kind, s.Handler, s.Problem, s.unread = KindConflict, nil, "several tokens name this keyslot", true
		return
	}
	s.Kind, s.Handler = kind, handler
	if handler == nil {
		// A passphrase may still open it: clevis and others keep theirs in
		// tokens of their own.
		return
	}
	s.Altered = set.LooksAltered(h, t)
	d, err := handler.Describe(t)
	switch {
	case err != nil:
		s.Problem, s.unread = err.Error(), true
	case d.Unusable != "":
		s.Problem = d.Unusable
	}
	s.Description = d
	if d.Label != "" {
		s.Label = d.Label
	}
}

// Orphans are the tokens of known types that name no keyslot: leftovers of
// cryptsetup luksKillSlot, which removes a slot but not its token.
func Orphans(set Set, h *luks2.Header) []luks2.Token {
	return slices.DeleteFunc(slices.Clone(h.Tokens), func(t luks2.Token) bool {
		return len(t.Keyslots) > 0 || set.ByType(t.Type) == nil
	})
}

// Orphaned are the orphans of one type.
type Orphaned struct {
	Type string
	IDs  []int
}

// OrphansByType are the orphans of a volume, of which a hostile header has thousands.
func OrphansByType(set Set, h *luks2.Header) (list []Orphaned) {
	for _, t := range Orphans(set, h) {
		i := slices.IndexFunc(list, func(o Orphaned) bool { return o.Type == t.Type })
		if i < 0 {
			i, list = len(list), append(list, Orphaned{Type: t.Type})
		}
		list[i].IDs = append(list[i].IDs, t.ID)
	}
	return list
}

// Text says what they are and what they have not.
func (o *Orphaned) Text() (who, what string) {
	if len(o.IDs) > 1 {
		return fmt.Sprintf("%d tokens (%s)", len(o.IDs), o.Type), "have no keyslot"
	}
	return fmt.Sprintf("token %d (%s)", o.IDs[0], o.Type), "has no keyslot"
}

// RemoveTokens takes those of the tokens away that still name no keyslot, and those
// of known types that named several keyslots in the header before and name a single
// one now: nobody heeded them, and they are not to speak for the keyslot that is left.
func RemoveTokens(tx *luks2.Tx, set Set, before *luks2.Header, orphans []int) error {
	several := make(map[int]bool)
	for _, t := range before.Tokens {
		several[t.ID] = len(t.Keyslots) > 1
	}
	unused := make(map[int]bool)
	for _, id := range orphans {
		unused[id] = true
	}
	var going []int
	for _, t := range tx.Header().Tokens {
		if unused[t.ID] && len(t.Keyslots) == 0 || several[t.ID] && len(t.Keyslots) < 2 && set.ByType(t.Type) != nil {
			going = append(going, t.ID)
		}
	}
	if going == nil {
		return nil
	}
	return tx.RemoveToken(going...)
}
