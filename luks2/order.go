package luks2

import (
	"cmp"
	"slices"
)

// AnySlot lets [Device.OpenKeyslot] choose, in the order of
// [Header.PassphraseOrder].
const AnySlot = -1

// PassphraseOrder is the order in which a passphrase is tried when no keyslot is
// named: keyslots of the data segment, first those that no token names or that a
// recovery or unknown token names (clevis), by priority and number; last those
// that only tokens of security devices name, and of them only the ones whose KDF
// is cheap. Trying these lets a key that was derived elsewhere, by an agent or
// from escrow, open the volume. Keyslots of priority 0 are left out.
//
// Unlike libcryptsetup, which goes by priority and number alone and so spends
// each wrong passphrase on all token slots first.
func (h *Header) PassphraseOrder() []int {
	type candidate struct {
		late bool
		*Keyslot
	}
	var list []candidate
	for i := range h.Keyslots {
		k := &h.Keyslots[i]
		if k.Type != "luks2" || k.Priority != PriorityNormal && k.Priority != PriorityPrefer || !h.OpensData(k.ID) {
			continue
		}
		late := h.onlyDevices(k.ID)
		if late && !k.KDF.isCheap() {
			continue
		}
		list = append(list, candidate{late, k})
	}
	slices.SortFunc(list, func(a, b candidate) int {
		if a.late != b.late {
			if a.late {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.ID, b.ID))
	})
	slots := make([]int, len(list))
	for i, c := range list {
		slots[i] = c.ID
	}
	return slots
}

// onlyDevices reports whether tokens name the keyslot and all of them are of
// types whose passphrase comes from a security device.
func (h *Header) onlyDevices(slot int) bool {
	tokens := h.TokensOf(slot)
	for _, t := range tokens {
		switch t.Type {
		case "systemd-tpm2", "systemd-fido2", "systemd-pkcs11":
		default:
			return false
		}
	}
	return len(tokens) > 0
}
