package tpm2

import (
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// readPresent reads all PCRs that the candidates hang on, once, if there are several
// candidates: the policy of each follows from the values, so that those which cannot
// fit are left out without a word to the TPM. What cannot be read rules nothing out.
// A single one is tried whatever the values are, which are read for a witness only.
func (o *opener) readPresent(list []*candidate) {
	sets, bound := map[chip.Bank]chip.PCRSet{}, 0
	for _, c := range list {
		if t := c.parsed; t.Bank != 0 && t.PCRs != 0 {
			sets[t.Bank] |= t.PCRs
			bound++
		}
	}
	o.watch(list, sets)
	if bound < 2 && o.sight == nil {
		return
	}
	present := map[chip.Bank]chip.PCRValues{}
	for b, set := range sets {
		if values, err := o.c.ReadPCRs(b, set); err == nil {
			present[b] = values
			o.sightOf(b, values)
		}
	}
	if bound > 1 {
		o.present = present
	}
}

// presentValues are those that readPresent read for a token, nil without all of
// them.
func (o *opener) presentValues(c *policy.Conditions) chip.PCRValues {
	values := chip.PCRValues{}
	for _, i := range c.PCRs.List() {
		value, ok := o.present[c.Bank][i]
		if !ok {
			return nil
		}
		values[i] = value
	}
	return values
}

// ruledOut is why a token cannot open in the present state, nil if it may.
func (o *opener) ruledOut(t *token) error {
	values := o.presentValues(&t.Conditions)
	if t.PCRs == 0 || values == nil || t.unusable() != "" || t.Possible(t.policy, values) {
		return nil
	}
	return o.explain(&tokenRun{t: t}, policy.ErrPCRsDiffer)
}
