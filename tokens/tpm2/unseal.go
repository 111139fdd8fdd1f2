package tpm2

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

const (
	// maxPCRRetries is how often a policy is started anew because a PCR changed
	// in the middle: systemd's number.
	maxPCRRetries = 30
	// maxPINAttempts bounds the questions for one token.
	maxPINAttempts = 5
)

// opener opens tokens over one connection.
type opener struct {
	h       *Handler
	c       *chip.Conn
	ui      tokens.UI
	volume  tokens.Volume
	slot    string // of the token that is tried, as an option; may be empty
	pinText string // the question; empty: the usual one
	// knownPIN is used in place of a question, once.
	knownPIN secret.Secret
	// attempt counts wrong PINs over all tokens of a run: once a credential was
	// wrong it must not be spent on the next token too.
	attempt int
	locked  error // the TPM refuses PINs
	made    bool  // the token was made in this call, for the storage key that the TPM has
	// signatures are read when the first token needs them.
	signatures *policy.Signatures
	primaries  map[string]*chip.Parent // made by TPM2_CreatePrimary, by algorithm
	// present are values that were read once for all tokens, see readPresent.
	present map[chip.Bank]chip.PCRValues
	sight   *tokens.Sight // nil where nobody is told
}

// tokenRun satisfies the policies of a token.
type tokenRun struct {
	policy.Run
	t *token
}

// shard is one sealed object on its way through the TPM.
type shard struct {
	kind    policy.Shard
	object  tpm2.NamedHandle
	session *chip.Session
}

// open unseals a token and returns the passphrase, which the caller wipes.
func (o *opener) open(t *token) (passphrase secret.Secret, err error) {
	if reason := t.unusable(); reason != "" {
		return secret.Secret{}, fmt.Errorf("%w: %s", tokens.ErrUnsupported, reason)
	}
	err = o.withShards(t, func(r *tokenRun, p *chip.Parent, shards []shard) error {
		if !t.PIN {
			passphrase, err = o.unsealAll(r, p, shards, pinKeys{})
			return err
		}
		passphrase, err = o.withPIN(t, func(keys pinKeys, _ secret.Secret) (secret.Secret, error) { return o.unsealAll(r, p, shards, keys) })
		return err
	})
	return passphrase, o.lockedError(err)
}

// withShards loads the sealed objects of a token, satisfies the policy of each in
// a session of its own, calls use, and releases all of it.
func (o *opener) withShards(t *token, use func(*tokenRun, *chip.Parent, []shard) error) error {
	if err := t.argon.affordable(); err != nil {
		return err // before anybody is asked, and without a word to the TPM
	}
	p, err := o.parentOf(t)
	if err != nil {
		return err
	}
	if err := o.trusts(t, p); err != nil {
		return err
	}
	// A TPM that cannot load the object is another one: it never sees a session
	// that knows the PIN.
	shards, err := o.load(t, p)
	defer o.release(shards)
	if err != nil {
		return err
	}
	r, err := o.newRun(t)
	if err != nil {
		return err
	}
	for i := range shards {
		if err := o.authorize(r, p, &shards[i]); err != nil {
			return err
		}
	}
	return use(r, p, shards)
}

// parentOf is the key that the token was sealed under.
func (o *opener) parentOf(t *token) (*chip.Parent, error) {
	if t.Parent != nil {
		return t.Parent, nil
	}
	if p := o.primaries[t.primaryAlg]; p != nil {
		return p, nil
	}
	template := chip.StorageTemplate(t.primaryAlg, false)
	p, err := o.c.Primary(template)
	if chip.Failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail) {
		return nil, chip.OwnerPassword()
	}
	if err != nil {
		return nil, fmt.Errorf("making the storage key: %w", err)
	}
	if o.primaries == nil {
		o.primaries = map[string]*chip.Parent{}
	}
	o.primaries[t.primaryAlg] = p
	return p, nil
}

// load loads the sealed objects. What is returned has to be released, also with
// an error.
func (o *opener) load(t *token, p *chip.Parent) ([]shard, error) {
	var shards []shard
	for i, kind := range t.Shards() {
		blob := t.blobs[i]
		private := blob.Private
		if blob.Seed != nil {
			var err error
			if private, err = o.c.ImportObject(p, blob); err != nil {
				return shards, o.loadError(p, err)
			}
		}
		object, err := o.c.Load(p, private, blob.Public)
		if err != nil {
			return shards, o.loadError(p, err)
		}
		shards = append(shards, shard{kind: kind, object: object})
	}
	return shards, nil
}

// loadError explains why the TPM does not take an object that it or another TPM
// made.
func (o *opener) loadError(p *chip.Parent, err error) error {
	switch {
	case chip.Failed(err, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0):
		err = fmt.Errorf("%w: this TPM has no key at handle %#x, so it is another one or was cleared: %w", tokens.ErrOtherDevice, uint32(p.Handle), err)
	case chip.Failed(err, tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCType, tpm2.TPMRCKey, tpm2.TPMRCSize, tpm2.TPMRCECCPoint, tpm2.TPMRCBinding, tpm2.TPMRCHash,
		tpm2.TPMRCSymmetric, tpm2.TPMRCInsufficient, tpm2.TPMRCAttributes):
		err = fmt.Errorf("%w: %w", tokens.ErrOtherDevice, err)
	case chip.Failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail):
		return fmt.Errorf("the storage key at handle %#x has a password: %w", uint32(p.Handle), err)
	default:
		return err
	}
	return tokens.WithHint(err, o.renewal("seal it to this TPM, with a passphrase or the recovery key: cryptenroll reseal"))
}

func (o *opener) release(shards []shard) {
	for i := range shards {
		if s := shards[i].session; s != nil {
			s.Close(o.c)
		}
		o.c.Flush(shards[i].object.Handle)
	}
}

// newRun collects what the policies of a token need.
func (o *opener) newRun(t *token) (*tokenRun, error) {
	if t.Bank == 0 && (t.PCRs|t.SignedPCRs) != 0 {
		if err := o.findBank(t); err != nil {
			return nil, err
		}
	}
	r := &tokenRun{policy.Run{Conn: o.c, Want: &t.Conditions, Expected: t.recorded(), Exponent: 65537}, t}
	var err error
	if t.SignedPCRs != 0 {
		if o.signatures == nil {
			if o.signatures, err = o.h.loadSignatures(); err != nil {
				return nil, err
			}
		}
		r.Signatures, r.NoFile = o.signatures.With(t.ownSignatures()), o.h.noSignatureFile()
		r.Exponent = t.KeyExponent(t.policy[0], t.recorded())
	}
	if t.PCRLock {
		if r.PCRLock, err = o.h.pcrlockFor(t); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// findBank decides which bank a token of systemd 248 or 249 means, which did not
// record it: the one whose present values fit, else SHA-256.
func (o *opener) findBank(t *token) error {
	for _, b := range []chip.Bank{chip.BankSHA256, chip.BankSHA1} {
		values, err := o.c.ReadPCRs(b, t.PCRs)
		if err != nil {
			if o.c.Broken() {
				return err
			}
			continue // the TPM lacks this bank
		}
		t.Bank = b
		if t.Explains(t.policy, values) {
			return nil
		}
	}
	t.Bank = chip.BankSHA256
	return nil
}

// authorize starts the session of a shard and satisfies its policy. When a PCR
// changes meanwhile it begins again.
func (o *opener) authorize(r *tokenRun, p *chip.Parent, sh *shard) error {
	for range maxPCRRetries {
		if sh.session != nil {
			sh.session.Close(o.c)
			sh.session = nil
		}
		s, err := o.c.StartPolicy(p)
		if err != nil {
			return err
		}
		sh.session = s
		if err = r.Satisfy(s, sh.kind); !chip.Failed(err, tpm2.TPMRCPCRChanged) {
			return o.explain(r, err)
		}
	}
	return fmt.Errorf("%w: the PCRs keep changing", tokens.ErrBusy)
}

// unsealAll unseals every shard and puts the passphrase together.
func (o *opener) unsealAll(r *tokenRun, p *chip.Parent, shards []shard, keys pinKeys) (secret.Secret, error) {
	parts := make([]secret.Secret, 0, len(shards))
	defer func() { secret.WipeAll(parts) }()
	for i := range shards {
		part, err := o.unsealShard(r, p, &shards[i], keys)
		if err != nil {
			return secret.Secret{}, err
		}
		parts = append(parts, part)
	}
	key := secret.Join(parts...)
	defer key.Wipe()
	return keys.passphrase(key)
}

func (o *opener) unsealShard(r *tokenRun, p *chip.Parent, sh *shard, keys pinKeys) (secret.Secret, error) {
	for range maxPCRRetries {
		part, err := o.c.Unseal(sh.object, sh.session, keys.auth)
		switch {
		case chip.Failed(err, tpm2.TPMRCPCRChanged):
		case chip.Failed(err, tpm2.TPMRCPolicyFail) && r.t.SignedPCRs != 0 && r.Exponent != 0 && sh.kind == policy.ShardSigned:
			// systemd 255.0 to 255.2 named the signing key otherwise.
			r.Exponent = 0
		case chip.Failed(err, tpm2.TPMRCPolicyFail):
			return part, o.explain(r, policy.ErrPCRsDiffer)
		case isWrongPIN(err) && !r.t.PIN:
			return part, fmt.Errorf("%w: %w", chip.ErrNotAuthentic, err)
		default:
			return part, err
		}
		if err := o.authorize(r, p, sh); err != nil {
			return secret.Secret{}, err
		}
	}
	return secret.Secret{}, fmt.Errorf("%w: the PCRs keep changing", tokens.ErrBusy)
}
