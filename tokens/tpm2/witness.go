package tpm2

import (
	"maps"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

var _ tokens.Witness = (*Handler)(nil)

// witnessed are the PCRs that boot programs and the initrd write and updates move, and
// the latch's: as many as a TPM tells in one answer.
const witnessed chip.PCRSet = 1<<4 | 1<<7 | 1<<9 | 1<<11 | 1<<12 | 1<<13 | 1<<14 | 1<<15

// Witness implements [tokens.Witness]. It costs one TPM2_PCR_Read, or none where
// several tokens are told apart by their PCRs.
func (h *Handler) Witness(saw func(*tokens.Sight)) { h.saw = saw }

// watch notes the PCRs that a witness is told, beside those that the tokens hang on.
func (o *opener) watch(list []*candidate, sets map[chip.Bank]chip.PCRSet) {
	if o.h.saw == nil {
		return
	}
	bank := chip.BankSHA256
	o.sight = &tokens.Sight{Policies: map[int][]byte{}}
	for i := len(list) - 1; i >= 0; i-- { // the first one decides
		t := list[i].parsed
		if t.Bank != 0 && t.PCRs != 0 {
			bank = t.Bank
		}
		if len(t.policy) > 0 && t.policy[0] != (chip.Digest{}) {
			o.sight.Policies[list[i].raw.ID] = t.policy[0][:]
		}
	}
	sets[bank] |= witnessed
	o.sight.Bank = bank.String()
}

// tell calls the witness with what the run found.
func (o *opener) tell(errs []error) {
	if o.sight == nil {
		return
	}
	for _, err := range errs {
		if e, ok := err.(*tokens.TokenError); ok {
			o.sight.Failed = append(o.sight.Failed, e)
		}
	}
	o.h.saw(o.sight)
}

// sightOf keeps the values of the bank that the witness is told.
func (o *opener) sightOf(b chip.Bank, values chip.PCRValues) {
	if o.sight != nil && o.sight.Bank == b.String() {
		o.sight.PCRs = maps.Clone(values)
	}
}
