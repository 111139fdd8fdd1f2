package luks2

// AnySlot lets [Device.OpenKeyslot] choose, in the order of
// [Header.PassphraseOrder].
const AnySlot = -1

// PassphraseOrder is the order in which a passphrase is tried when no keyslot is
// named: keyslots of the data segment, first those that no token names or that a
// recovery or unknown token names (clevis), by priority and number; last those
// that only tokens of security devices name, and of them only the ones whose KDF
// is cheap. Trying these lets a key that was derived elsewhere, by an agent or
// from escrow, open the volume. Keyslots of priority 0 are left out, and those with
// numbers that no program gives.
//
// Unlike libcryptsetup, which goes by priority and number alone and so spends
// each wrong passphrase on all token slots first.
func (h *Header) PassphraseOrder() []int {
	var slots []int
	for _, late := range []bool{false, true} {
		for _, priority := range []Priority{PriorityPrefer, PriorityNormal} {
			for i := range h.Keyslots { // which are in the order of their numbers
				k := &h.Keyslots[i]
				if k.ID < MaxKeyslots && k.Type == "luks2" && k.Priority == priority && h.OpensData(k.ID) &&
					h.onlyDevices(k.ID) == late && (!late || k.KDF.isCheap()) {
					slots = append(slots, k.ID)
				}
			}
		}
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
