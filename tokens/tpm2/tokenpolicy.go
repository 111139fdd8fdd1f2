package tpm2

import "strconv"

// shardKind is the part of the policy that comes before PCRs and PIN.
type shardKind int

const (
	shardPlain   shardKind = iota
	shardSigned            // PolicyAuthorize
	shardPCRLock           // PolicyAuthorizeNV
)

// shards are the kinds of a token's sealed objects, in order.
func (t *token) shards() []shardKind {
	switch {
	case t.signedPCRs != 0 && t.pcrlock:
		return []shardKind{shardSigned, shardPCRLock}
	case t.signedPCRs != 0:
		return []shardKind{shardSigned}
	case t.pcrlock:
		return []shardKind{shardPCRLock}
	}
	return []shardKind{shardPlain}
}

// policyOf computes the policy of a shard for given values of the literal PCRs.
// exponent is that of the signing key's name, nvName the index of a pcrlock
// policy; each counts for its kind only.
func (t *token) policyOf(kind shardKind, values pcrValues, exponent uint32, nvName []byte) policyDigest {
	var d policyDigest
	switch kind {
	case shardSigned:
		d.authorize(t.pubkey.name(exponent), policyRef(t.policyRef))
	case shardPCRLock:
		d.authorizeNV(nvName)
	}
	if t.pcrs != 0 {
		d.pcr(t.bank, values)
	}
	if t.pin {
		d.authValue()
	}
	return d
}

// recorded returns the values of the literal PCRs at enrolment, or nil when they
// are not known. They count only if the policy of the token follows from them, so
// a wrong record can neither keep a token from opening nor mislead anybody.
func (t *token) recorded() pcrValues {
	if t.extra.TPM2 == nil || t.pcrs == 0 || t.bank == 0 || t.ecSigned() {
		return nil
	}
	values := pcrValues{}
	for name, value := range t.extra.TPM2.PCRs {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= maxPCRs || len(value) != t.bank.size() {
			return nil
		}
		values[i] = value
	}
	if values.set() != t.pcrs || !t.explains(values) {
		return nil
	}
	return values
}

// explains reports whether the policy of the token is that of the given values of
// its literal PCRs.
func (t *token) explains(values pcrValues) bool {
	for i, kind := range t.shards() {
		var nvName []byte
		if t.nvIndex != nil {
			nvName = t.nvIndex.name
		}
		if t.policyOf(kind, values, 65537, nvName) == t.policy[i] || kind == shardSigned && t.policyOf(kind, values, 0, nil) == t.policy[i] {
			return true
		}
	}
	return false
}

// latched reports whether the token opens once a boot only: it is bound to PCR
// 15, which the measurement of the volume key changes.
func (t *token) latched() bool { return t.pcrs.has(latchPCR) }

// latchPCR is the PCR that volume keys are measured into.
const latchPCR = 15

// signingExponent is the exponent under which the token names its signing key.
func (t *token) signingExponent() uint32 {
	values := t.recorded()
	if t.pcrs != 0 && values == nil {
		return 65537
	}
	if t.policyOf(shardSigned, values, 65537, nil) != t.policy[0] && t.policyOf(shardSigned, values, 0, nil) == t.policy[0] {
		return 0
	}
	return 65537
}
