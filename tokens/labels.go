package tokens

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"luksmith/luks2"
)

// LabelType is the type of the one token that names keyslots which have no token
// of a handler: {"type":"luksmith","keyslots":[],"labels":{"0":{…}}}. It names no
// keyslot, because a second token on a slot would be a conflict for systemd.
const LabelType = "luksmith"

// MaxLabel is the longest label, in bytes. Labels share 12 KiB with everything
// else in the header.
const MaxLabel = 64

// slotLabel is one entry. The mark binds it to the slot's salt, so that another
// slot that gets the number later does not inherit the name.
type slotLabel struct {
	Label LabelText `json:"label"`
	Mark  string    `json:"salt"`
}

type slotLabels map[string]slotLabel

// labelMark is the first half of the SHA-256 of a keyslot's salt, in hex.
func labelMark(k *luks2.Keyslot) string {
	sum := sha256.Sum256(k.KDF.Salt)
	return hex.EncodeToString(sum[:16])
}

// of returns the name of a slot, or "".
func (l slotLabels) of(k *luks2.Keyslot) string {
	if entry, ok := l[strconv.Itoa(k.ID)]; ok && entry.Mark == labelMark(k) {
		return string(entry.Label)
	}
	return ""
}

// LabelText is a label as it is read from a header, of [MaxLabel] bytes at most:
// whoever edits the header can put one there that fills screens and logs.
type LabelText string

// UnmarshalJSON cuts a label that is too long, and ends it with "…".
func (l *LabelText) UnmarshalJSON(text []byte) error {
	var label string
	if err := json.Unmarshal(text, &label); err != nil {
		return err
	}
	if len(label) > MaxLabel {
		label = strings.ToValidUTF8(label[:MaxLabel-len("…")], "") + "…"
	}
	*l = LabelText(label)
	return nil
}

// labelToken finds the label token: its id and labels, -1 without one.
func labelToken(h *luks2.Header) (int, slotLabels) {
	for _, t := range h.Heeded() {
		if t.Type != LabelType || len(t.Keyslots) != 0 {
			continue
		}
		members, err := Members(t.Raw)
		if err != nil {
			continue
		}
		var labels slotLabels
		if json.Unmarshal(members["labels"], &labels) == nil && labels != nil {
			return t.ID, labels
		}
	}
	return -1, slotLabels{}
}

func readLabels(h *luks2.Header) slotLabels {
	_, labels := labelToken(h)
	return labels
}

// CheckLabel says whether a text may become a label: valid UTF-8 of 1 to MaxLabel
// bytes without control characters.
func CheckLabel(label string) error {
	switch {
	case label == "":
		return Usagef("the label is empty")
	case len(label) > MaxLabel:
		return Usagef("the label has %d bytes, at most %d are allowed", len(label), MaxLabel)
	case !utf8.ValidString(label):
		return Usagef("the label is not UTF-8")
	}
	for _, r := range label {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return Usagef("the label has the control character %U", r)
		}
	}
	return nil
}

// SetLabel names a keyslot as part of a transaction; an empty label removes the
// name. A slot with exactly one token of a known type has it in that token, the
// others in the label token.
func SetLabel(tx *luks2.Tx, set Set, slot int, label string) error {
	h := tx.Header()
	k, ok := h.Keyslot(slot)
	if !ok {
		return fmt.Errorf("keyslot %d: %w", slot, luks2.ErrNoKeyslot)
	}
	if list := h.TokensOf(slot); len(list) == 1 && set.ByType(list[0].Type) != nil && len(list[0].Keyslots) == 1 {
		return relabelToken(tx, list[0], label)
	}
	return relabelSlot(tx, k, label)
}

// relabelToken changes one member inside the token; all others keep their bytes.
func relabelToken(tx *luks2.Tx, t luks2.Token, label string) error {
	var err error
	if t.Raw, err = setExtra(t.Raw, "label", label); err != nil {
		return fmt.Errorf("token %d: setting the label: %w", t.ID, err)
	}
	return tx.ReplaceToken(t.ID, t)
}

// relabelSlot changes the label token, or makes or removes it. Entries of slots
// that are gone are dropped on the way.
func relabelSlot(tx *luks2.Tx, k *luks2.Keyslot, label string) error {
	h := tx.Header()
	id, old := labelToken(h)
	labels := slotLabels{}
	for i := range h.Keyslots {
		other := &h.Keyslots[i]
		if name := old.of(other); name != "" && other.ID != k.ID {
			labels[strconv.Itoa(other.ID)] = slotLabel{LabelText(name), labelMark(other)}
		}
	}
	if label != "" {
		labels[strconv.Itoa(k.ID)] = slotLabel{LabelText(label), labelMark(k)}
	}
	if len(labels) == 0 {
		if id < 0 {
			return nil
		}
		return tx.RemoveToken(id)
	}
	raw, err := json.Marshal(map[string]any{"type": LabelType, "keyslots": []string{}, "labels": labels})
	if err != nil {
		return err
	}
	t := luks2.Token{Type: LabelType, Raw: raw}
	if id >= 0 {
		return tx.ReplaceToken(id, t)
	}
	_, err = tx.AddToken(t)
	return err
}
