package tpm2

import (
	"bytes"
	"strconv"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
)

// extra is our member of the token.
type extra struct {
	tokens.Extra
	TPM2 *record `json:"tpm2,omitempty"`
}

// maxExtra is the room for our member: the header has 12 KiB for everything.
const maxExtra = 1024

// record is what diagnosis needs to know of the enrolment. It is untrusted: see
// token.recorded.
type record struct {
	// PCRs are the values of the literally bound PCRs, by number.
	PCRs map[string][]byte `json:"pcrs,omitempty"`
	// Events are the eventlog.Prefixes of the same PCRs.
	Events map[string][]byte `json:"events,omitempty"`
	// Boot is the boot entry of the state, in tokens that were made before it.
	Boot *BootEntry `json:"boot,omitempty"`
	// Signatures approve values of the signed PCRs.
	Signatures []ownSignature `json:"signatures,omitempty"`
}

// bootState are the values that a token is bound to, and the events of this boot.
type bootState struct {
	bank   chip.Bank
	values chip.PCRValues
	events []eventlog.Event
	boot   *BootEntry // nil for the present state
}

// newExtra makes the member, without the events of the busiest PCRs, or without
// any values, if it would be too large.
func newExtra(e tokens.Extra, s bootState) *extra {
	x := &extra{Extra: e}
	if len(s.values) == 0 {
		return x
	}
	x.TPM2 = &record{PCRs: map[string][]byte{}, Events: map[string][]byte{}, Boot: s.boot}
	for i, value := range s.values {
		x.TPM2.PCRs[strconv.Itoa(i)] = value
		if bytes.Equal(eventlog.Replay(s.events, s.bank.String(), i), value) {
			x.TPM2.Events[strconv.Itoa(i)] = eventlog.Prefixes(s.events, s.bank.String(), i)
		}
	}
	for x.size() > maxExtra && len(x.TPM2.Events) > 0 {
		delete(x.TPM2.Events, busiest(x.TPM2.Events))
	}
	if x.size() > maxExtra && x.TPM2.Boot != nil {
		x.TPM2 = &record{Boot: s.boot}
	}
	if x.size() > maxExtra {
		x.TPM2 = nil
	}
	return x
}

func (x *extra) size() int {
	b, _ := marshalToken(x) // of plain data, cannot fail
	return len(b)
}

func busiest(events map[string][]byte) string {
	var name string
	for n, list := range events {
		if name == "" || len(list) > len(events[name]) || len(list) == len(events[name]) && n > name {
			name = n
		}
	}
	return name
}

// recorded returns the values of the literal PCRs at enrolment, or nil when they
// are not known. They count only if the policy of the token follows from them, so
// a wrong record can neither keep a token from opening nor mislead anybody.
func (t *token) recorded() chip.PCRValues {
	if values := t.written(); values != nil && t.Explains(t.policy, values) {
		return values
	}
	return nil
}

// boot is the boot entry that the token was made for, nil for one of the state that the
// machine was in.
func (t *token) boot() *BootEntry {
	if t.extra.TPM2 == nil {
		return nil
	}
	return t.extra.TPM2.Boot
}

// written are the values that stand in the token, whether they are right or not; nil
// unless there is one for each of the literal PCRs.
func (t *token) written() chip.PCRValues {
	if t.extra.TPM2 == nil || t.PCRs == 0 || t.Bank == 0 || t.ECSigned() {
		return nil
	}
	values := chip.PCRValues{}
	for name, value := range t.extra.TPM2.PCRs {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= chip.PCRCount || len(value) != t.Bank.Size() {
			return nil
		}
		values[i] = value
	}
	if values.Set() != t.PCRs {
		return nil
	}
	return values
}
