package policy

import "luksmith/tokens/tpm2/chip"

// Shard is the part of the policy that comes before PCRs and PIN.
type Shard int

const (
	shardPlain   Shard = iota
	ShardSigned        // PolicyAuthorize
	shardPCRLock       // PolicyAuthorizeNV
)

// Conditions are what has to be satisfied before a TPM unseals the key of a token.
// The zero value is that there is nothing to satisfy.
type Conditions struct {
	PCRs       chip.PCRSet // bound literally
	Bank       chip.Bank   // of both kinds of PCRs; 0: not recorded
	PIN        bool
	SignedPCRs chip.PCRSet // empty: no signed policy
	Key        *SigningKey
	Ref        *string // nil: none, which is not the same as empty
	PCRLock    bool
	NVIndex    *chip.Resource // of the pcrlock policy; nil: not recorded
	Parent     *chip.Parent   // nil: a transient primary key, as systemd 248 to 253 used
}

// Shards are the kinds of a token's sealed objects, in order.
func (c *Conditions) Shards() []Shard {
	switch {
	case c.SignedPCRs != 0 && c.PCRLock:
		return []Shard{ShardSigned, shardPCRLock}
	case c.SignedPCRs != 0:
		return []Shard{ShardSigned}
	case c.PCRLock:
		return []Shard{shardPCRLock}
	}
	return []Shard{shardPlain}
}

// Digest computes the policy of a shard for given values of the literal PCRs.
// exponent is that of the signing key's name, nvName the index of a pcrlock
// policy; each counts for its kind only.
func (c *Conditions) Digest(kind Shard, values chip.PCRValues, exponent uint32, nvName []byte) chip.Digest {
	var d chip.Digest
	switch kind {
	case ShardSigned:
		d.Authorize(c.Key.Name(exponent), RefDigest(c.Ref))
	case shardPCRLock:
		d.AuthorizeNV(nvName)
	}
	if c.PCRs != 0 {
		d.PCR(c.Bank, values)
	}
	if c.PIN {
		d.AuthValue()
	}
	return d
}

// LatchPCR is the PCR that volume keys are measured into.
const LatchPCR = 15

// Latched reports whether the token opens once a boot only: it is bound to PCR
// 15, which the measurement of the volume key changes.
func (c *Conditions) Latched() bool { return c.PCRs.Has(LatchPCR) }

// Explains reports whether policies, one for each shard, are those of the given
// values of the literal PCRs.
func (c *Conditions) Explains(policies []chip.Digest, values chip.PCRValues) bool {
	for i, kind := range c.Shards() {
		var nvName []byte
		if c.NVIndex != nil {
			nvName = c.NVIndex.Name
		}
		if c.Digest(kind, values, 65537, nvName) == policies[i] || kind == ShardSigned && c.Digest(kind, values, 0, nil) == policies[i] {
			return true
		}
	}
	return false
}

// KeyExponent is the one under which a signed policy names its key, 65537 if the
// values of the literal PCRs are not known.
func (c *Conditions) KeyExponent(policy chip.Digest, values chip.PCRValues) uint32 {
	if c.PCRs != 0 && values == nil {
		return 65537
	}
	if c.Digest(ShardSigned, values, 65537, nil) != policy && c.Digest(ShardSigned, values, 0, nil) == policy {
		return 0
	}
	return 65537
}

// ECSigned reports whether the policy is signed with a key that nothing can check.
func (c *Conditions) ECSigned() bool { return c.SignedPCRs != 0 && c.Key.RSA == nil }

// Contradict reports whether policies, one for each shard, cannot come from the
// conditions. Of those that hang on values of PCRs nothing is known.
func (c *Conditions) Contradict(policies []chip.Digest) bool {
	return c.PCRs == 0 && !c.Possible(policies, nil)
}

// Possible reports whether policies, one for each shard, may be those of the given
// values of the literal PCRs. What signed or predicted values are does not enter.
func (c *Conditions) Possible(policies []chip.Digest, values chip.PCRValues) bool {
	if c.ECSigned() {
		return true
	}
	for i, kind := range c.Shards() {
		switch {
		case kind == shardPCRLock && c.NVIndex == nil:
		case kind == shardPCRLock && c.Digest(kind, values, 0, c.NVIndex.Name) == policies[i]:
		case kind != shardPCRLock && c.Digest(kind, values, 65537, nil) == policies[i]:
		case kind == ShardSigned && c.Digest(kind, values, 0, nil) == policies[i]:
		default:
			return false
		}
	}
	return true
}
