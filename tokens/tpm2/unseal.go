package tpm2

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens"
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
	c       *conn
	ui      tokens.UI
	volume  tokens.Volume
	pinText string // the question; empty: the usual one
	// knownPIN is used in place of a question, once.
	knownPIN secret.Secret
	// attempt counts wrong PINs over all tokens of a run: once a credential was
	// wrong it must not be spent on the next token too.
	attempt int
	locked  error // the TPM refuses PINs
	// signatures are read when the first token needs them.
	signatures *signatures
	primaries  map[string]*parent // made by TPM2_CreatePrimary, by algorithm
}

// shard is one sealed object on its way through the TPM.
type shard struct {
	kind    shardKind
	object  tpm2.NamedHandle
	session *session
}

// open unseals a token and returns the passphrase, which the caller wipes.
func (o *opener) open(t *token) (passphrase secret.Secret, err error) {
	if reason := t.unusable(); reason != "" {
		return secret.Secret{}, fmt.Errorf("%w: %s", tokens.ErrUnsupported, reason)
	}
	err = o.withShards(t, func(r *policyRun, p *parent, shards []shard) error {
		if !t.pin {
			passphrase, err = o.unsealAll(r, p, shards, pinKeys{})
			return err
		}
		passphrase, err = o.withPIN(t, func(keys pinKeys, _ secret.Secret) (secret.Secret, error) { return o.unsealAll(r, p, shards, keys) })
		return err
	})
	return passphrase, err
}

// withShards loads the sealed objects of a token, satisfies the policy of each in
// a session of its own, calls use, and releases all of it.
func (o *opener) withShards(t *token, use func(*policyRun, *parent, []shard) error) error {
	p, err := o.parentOf(t)
	if err != nil {
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
func (o *opener) parentOf(t *token) (*parent, error) {
	if t.parent != nil {
		return t.parent, nil
	}
	if p := o.primaries[t.primaryAlg]; p != nil {
		return p, nil
	}
	p, err := o.c.primary(storageTemplate(t.primaryAlg, false))
	if failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail) {
		return nil, errOwnerPassword
	}
	if err != nil {
		return nil, fmt.Errorf("making the storage key: %w", err)
	}
	if o.primaries == nil {
		o.primaries = map[string]*parent{}
	}
	o.primaries[t.primaryAlg] = p
	return p, nil
}

// load loads the sealed objects. What is returned has to be released, also with
// an error.
func (o *opener) load(t *token, p *parent) ([]shard, error) {
	var shards []shard
	for i, kind := range t.shards() {
		blob := t.blobs[i]
		private := blob.private
		if blob.seed != nil {
			var err error
			if private, err = o.c.importObject(p, blob); err != nil {
				return shards, o.loadError(p, err)
			}
		}
		object, err := o.c.load(p, private, blob.public)
		if err != nil {
			return shards, o.loadError(p, err)
		}
		shards = append(shards, shard{kind: kind, object: object})
	}
	return shards, nil
}

// loadError explains why the TPM does not take an object that it or another TPM
// made.
func (o *opener) loadError(p *parent, err error) error {
	switch {
	case failed(err, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0):
		err = fmt.Errorf("%w: this TPM has no key at handle %#x, so it is another one or was cleared: %w", tokens.ErrOtherDevice, uint32(p.handle), err)
	case failed(err, tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCType, tpm2.TPMRCKey, tpm2.TPMRCSize, tpm2.TPMRCECCPoint, tpm2.TPMRCBinding, tpm2.TPMRCHash,
		tpm2.TPMRCSymmetric, tpm2.TPMRCInsufficient, tpm2.TPMRCAttributes):
		err = fmt.Errorf("%w: %w", tokens.ErrOtherDevice, err)
	case failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail):
		return fmt.Errorf("the storage key at handle %#x has a password: %w", uint32(p.handle), err)
	default:
		return err
	}
	return tokens.WithHint(err, "open the volume with a passphrase or the recovery key and seal it to this TPM: "+o.resealCommand())
}

func (o *opener) release(shards []shard) {
	for i := range shards {
		if s := shards[i].session; s != nil {
			s.close(o.c)
		}
		o.c.flush(shards[i].object.Handle)
	}
}

// newRun collects what the policies of a token need.
func (o *opener) newRun(t *token) (*policyRun, error) {
	if t.bank == 0 && (t.pcrs|t.signedPCRs) != 0 {
		if err := o.findBank(t); err != nil {
			return nil, err
		}
	}
	r := &policyRun{c: o.c, t: t, expected: t.recorded(), exponent: 65537}
	var err error
	if t.signedPCRs != 0 {
		if o.signatures == nil {
			if o.signatures, err = o.h.loadSignatures(); err != nil {
				return nil, err
			}
		}
		r.signatures = o.signatures
		r.exponent = t.signingExponent()
	}
	if t.pcrlock {
		if r.pcrlock, err = o.h.pcrlockFor(t); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// findBank decides which bank a token of systemd 248 or 249 means, which did not
// record it: the one whose present values fit, else SHA-256.
func (o *opener) findBank(t *token) error {
	for _, b := range []bank{bankSHA256, bankSHA1} {
		values, err := o.c.readPCRs(b, t.pcrs)
		if err != nil {
			if o.c.broken != nil {
				return err
			}
			continue // the TPM lacks this bank
		}
		t.bank = b
		if t.explains(values) {
			return nil
		}
	}
	t.bank = bankSHA256
	return nil
}

// authorize starts the session of a shard and satisfies its policy. When a PCR
// changes meanwhile it begins again.
func (o *opener) authorize(r *policyRun, p *parent, sh *shard) error {
	for range maxPCRRetries {
		if sh.session != nil {
			sh.session.close(o.c)
			sh.session = nil
		}
		s, err := o.c.startSession(p, sessionOptions{kind: tpm2.TPMSEPolicy})
		if err != nil {
			return err
		}
		sh.session = s
		if err = r.satisfy(s, sh.kind); !failed(err, tpm2.TPMRCPCRChanged) {
			return o.explain(r, err)
		}
	}
	return fmt.Errorf("%w: the PCRs keep changing", tokens.ErrBusy)
}

// unsealAll unseals every shard and puts the passphrase together.
func (o *opener) unsealAll(r *policyRun, p *parent, shards []shard, keys pinKeys) (secret.Secret, error) {
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

func (o *opener) unsealShard(r *policyRun, p *parent, sh *shard, keys pinKeys) (secret.Secret, error) {
	for range maxPCRRetries {
		part, err := o.c.unseal(sh.object, sh.session, keys.auth)
		switch {
		case failed(err, tpm2.TPMRCPCRChanged):
		case failed(err, tpm2.TPMRCPolicyFail) && r.t.signedPCRs != 0 && r.exponent != 0 && sh.kind == shardSigned:
			// systemd 255.0 to 255.2 named the signing key otherwise.
			r.exponent = 0
		case failed(err, tpm2.TPMRCPolicyFail):
			return part, o.explain(r, errPCRsDiffer)
		case isWrongPIN(err) && !r.t.pin:
			return part, fmt.Errorf("%w: %w", errNotAuthentic, err)
		default:
			return part, err
		}
		if err := o.authorize(r, p, sh); err != nil {
			return secret.Secret{}, err
		}
	}
	return secret.Secret{}, fmt.Errorf("%w: the PCRs keep changing", tokens.ErrBusy)
}

// unseal is TPM2_Unseal with the response encrypted. The TPM ends the session
// when it succeeds; after a refused PIN it can be used again.
func (c *conn) unseal(object tpm2.NamedHandle, s *session, auth secret.Secret) (secret.Secret, error) {
	s.attributes = attrEncrypt
	s.auth = auth
	defer func() { s.auth = secret.Secret{} }()
	_, err := run(c, "TPM2_Unseal", tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.Handle, Name: object.Name, Auth: s}})
	if err != nil {
		return secret.Secret{}, err
	}
	c.forget(s.handle)
	s.handle = tpm2.TPMRHNull
	if s.incoming.Len() == 0 {
		return secret.Secret{}, errors.New("TPM2_Unseal: the response is malformed")
	}
	unsealed := s.incoming
	s.incoming = secret.Secret{}
	return unsealed, nil
}

// withPIN asks for the PIN until use succeeds, the person gives up or the TPM
// locks. One answer is one try.
func (o *opener) withPIN(t *token, use func(keys pinKeys, pin secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	if t.argon != nil {
		if err := t.argon.affordable(); err != nil {
			return secret.Secret{}, err
		}
	}
	var wrong error
	for range maxPINAttempts {
		pin, err := o.askPIN(t)
		if err != nil {
			return secret.Secret{}, pinError(err, wrong)
		}
		got, err := o.tryPIN(t, pin, use)
		pin.Wipe()
		if !isWrongPIN(err) {
			return got, o.lockedError(err)
		}
		o.attempt++
		wrong = fmt.Errorf("%w: %w", tokens.ErrWrongPIN, err)
	}
	return secret.Secret{}, wrong
}

// pinError is what to report when there is no PIN: that the one before was wrong,
// if nobody could be asked for another.
func pinError(err, wrong error) error {
	if wrong != nil && errors.Is(err, tokens.ErrNoPrompt) {
		return wrong
	}
	return err
}

// lockedError adds to the TPM's refusal of all PINs when it will take one again.
func (o *opener) lockedError(err error) error {
	if !failed(err, tpm2.TPMRCLockout) {
		return err
	}
	l, lerr := o.c.lockout()
	if lerr != nil {
		return err
	}
	l.locked = true
	return l.err()
}

func (o *opener) tryPIN(t *token, pin secret.Secret, use func(pinKeys, secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	keys, err := derivePIN(o.c.ctx, pin, t.salt, t.argon)
	if err != nil {
		return secret.Secret{}, err
	}
	defer keys.wipe()
	if err := o.c.ctx.Err(); err != nil { // not every way of deriving looks
		return secret.Secret{}, err
	}
	return use(keys, pin)
}

// isWrongPIN tells a refused PIN. TPM_RC_AUTH_FAIL counts towards the lockout,
// TPM_RC_BAD_AUTH comes from objects that do not count.
func isWrongPIN(err error) bool { return failed(err, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) }

// askPIN asks once. An empty answer leaves the token without a try.
func (o *opener) askPIN(t *token) (secret.Secret, error) {
	if o.knownPIN.Len() > 0 {
		if o.attempt > 0 {
			return secret.Secret{}, tokens.ErrNoPrompt
		}
		return o.knownPIN.Clone(), nil
	}
	text := o.pinText
	if text == "" {
		text = "PIN of the TPM" + t.label() + o.volumeName()
	}
	pin, err := o.ui.Ask(o.c.ctx, tokens.Prompt{
		Text: text, Credential: "tpm2-pin", Attempt: o.attempt, Keyring: "tpm2-pin",
		Tries: func(context.Context) (int, error) { return o.triesLeft() },
	})
	if err == nil && pin.Len() == 0 {
		err = fmt.Errorf("%w: the answer was empty", tokens.ErrNoPrompt)
	}
	return pin, err
}

// volumeName is what the prompt calls the volume.
func (o *opener) volumeName() string {
	for _, name := range []string{o.volume.Name, o.volume.Label, o.volume.Device} {
		if name != "" {
			return " for " + name
		}
	}
	return ""
}

// triesLeft is how many wrong PINs the TPM takes before it locks. A TPM that is
// locked is an error.
func (o *opener) triesLeft() (int, error) {
	l, err := o.c.lockout()
	if err != nil {
		return 0, err
	}
	if err := l.err(); err != nil {
		return 0, err
	}
	return l.left(), nil
}
