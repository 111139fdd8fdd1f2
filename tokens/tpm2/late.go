package tpm2

import (
	"fmt"
	"maps"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// latePCRs are extended while the system starts: what the running system reads is
// not what the initrd will find.
const latePCRs chip.PCRSet = 1<<11 | 1<<12 | 1<<13 | 1<<15

// refuseLate binds PCRs that have other values now than when the volume is unlocked to
// the values that they had then, and refuses those of which nobody knows them.
func (s *settings) refuseLate(h *Handler) error {
	if h.PCRsAsTheyAre {
		return nil
	}
	var late chip.PCRSet
	for _, i := range (s.pcrs.Set & latePCRs).List() {
		if _, given := s.pcrs.Values[i]; !given {
			late |= chip.PCRSetOf(i)
		}
	}
	if late != 0 {
		late = s.takeLate(h, late)
	}
	if late == 0 {
		return nil
	}
	i := late.List()[0]
	return tokens.WithHint(tokens.Usagef("PCR %s is extended while the system starts: bound to the present value, the key would not open in the next boot", late),
		fmt.Sprintf("give the value that the initrd finds, --tpm2-pcrs=%d:sha256=HEX, use a signed policy (--tpm2-public-key=), or insist with --tpm2-pcrs-as-they-are", i))
}

// takeLate takes the values at unlock where they are known, and returns the PCRs of
// which they are not. What this machine saw says nothing about another one's TPM.
func (s *settings) takeLate(h *Handler, late chip.PCRSet) chip.PCRSet {
	if h.AtUnlock == nil || s.offline != nil || s.pcrs.Bank != 0 && s.pcrs.Bank != chip.BankSHA256 {
		return late
	}
	seen := h.AtUnlock(s.req.Volume.UUID, late.List())
	left := late
	values := chip.PCRValues{}
	maps.Copy(values, s.pcrs.Values)
	for _, i := range late.List() {
		if v := seen[i]; len(v) == chip.BankSHA256.Size() {
			values[i], left = v, left&^chip.PCRSetOf(i)
		}
	}
	if left == 0 { // else nothing is enrolled
		s.pcrs.Values, s.pcrs.Bank = values, chip.BankSHA256
		s.note(noteInfo, "PCR %s is bound to the value at the unlock in this boot, not to the present one.", late)
	}
	return left
}
