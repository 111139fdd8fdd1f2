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
// exponent is that of the signing key's name and counts for its kind only.
func (c *Conditions) Digest(kind Shard, values chip.PCRValues, exponent uint32) chip.Digest {
	var d chip.Digest
	switch kind {
	case ShardSigned:
		d.Authorize(c.Key.Name(exponent), RefDigest(c.Ref))
	case shardPCRLock:
		d.AuthorizeNV(c.nvName())
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

// nvName is the name of the index of a pcrlock policy, nil if it is not recorded.
func (c *Conditions) nvName() []byte {
	if c.NVIndex == nil {
		return nil
	}
	return c.NVIndex.Name
}

// gives reports whether a policy is that of a shard for values of the literal PCRs,
// with either of the exponents under which a signing key is named.
func (c *Conditions) gives(policy chip.Digest, kind Shard, values chip.PCRValues) bool {
	for _, exponent := range []uint32{65537, 0} {
		if c.Digest(kind, values, exponent) == policy {
			return true
		}
	}
	return false
}

// Explains reports whether policies, one for each shard, are those of the given
// values of the literal PCRs.
func (c *Conditions) Explains(policies []chip.Digest, values chip.PCRValues) bool {
	for i, kind := range c.Shards() {
		if c.gives(policies[i], kind, values) {
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
	if c.Digest(ShardSigned, values, 65537) != policy && c.Digest(ShardSigned, values, 0) == policy {
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
		if unknown := kind == shardPCRLock && c.NVIndex == nil; !unknown && !c.gives(policies[i], kind, values) {
			return false
		}
	}
	return true
}
