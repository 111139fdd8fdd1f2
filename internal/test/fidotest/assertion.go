package fidotest

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
)

type assertRequest struct {
	RP             string       `cbor:"1,keyasint"`
	ClientDataHash []byte       `cbor:"2,keyasint"`
	Allow          []descriptor `cbor:"3,keyasint"`
	Extensions     struct {
		HMACSecret *hmacRequest `cbor:"hmac-secret"`
	} `cbor:"4,keyasint"`
	Options     options `cbor:"5,keyasint"`
	PINAuth     []byte  `cbor:"6,keyasint"`
	PINProtocol uint    `cbor:"7,keyasint"`
}

// hmacRequest is the input of hmac-secret, CTAP 2.1 §12.5.
type hmacRequest struct {
	KeyAgreement coseKey `cbor:"1,keyasint"`
	SaltEnc      []byte  `cbor:"2,keyasint"`
	SaltAuth     []byte  `cbor:"3,keyasint"`
	Protocol     uint    `cbor:"4,keyasint"`
}

// getAssertion is CTAP 2.1 §6.2.2 for credentials that the caller names.
func (k *Key) getAssertion(ctx context.Context, r *assertRequest) (any, status) {
	k.mu.Lock()
	k.stats.Assertions++
	config := k.config
	k.mu.Unlock()
	if s := k.refuses(); s != 0 {
		return nil, s
	}
	if len(r.ClientDataHash) != sha256.Size || r.RP == "" {
		return nil, statusMissingParameter
	}
	up := r.Options.UP == nil || *r.Options.UP
	if !up && r.Extensions.HMACSecret != nil && k.needsTouchForHMAC {
		return nil, statusUnsupportedOption
	}
	v := verification{auth: r.PINAuth, protocol: r.PINProtocol, hash: r.ClientDataHash, rp: r.RP,
		permission: permitAssert, uvOption: is(r.Options.UV), always: config.AlwaysUV && up}
	user, s := k.verifyUser(ctx, v)
	if s != 0 {
		return nil, s
	}
	c := k.allowed(r, user.verified)
	if c == nil {
		return nil, statusNoCredentials
	}
	if up && !user.present {
		if s := k.waitForTouch(ctx); s != 0 {
			return nil, s
		}
	}
	var extension []byte
	flags := byte(0)
	if h := r.Extensions.HMACSecret; h != nil && c.hmacSecret && config.Fault != NoSecret {
		out, s := k.hmacSecret(h, k.secretKey(c, user.verified))
		if s != 0 {
			return nil, s
		}
		extension, flags = must(answers.Marshal(map[string]any{"hmac-secret": out})), flagExtensions
	}
	if up {
		flags |= flagUP
	}
	if user.verified {
		flags |= flagUV
	}
	if extension != nil && config.Fault == FickleFlags && k.Stats().Secrets%2 == 0 {
		flags ^= flagUP | flagUV
	}
	data := k.authData(r.RP, flags, extension)
	return map[int]any{
		1: map[string]any{"id": c.id, "type": "public-key"},
		2: data,
		3: k.sign(c, data, r.ClientDataHash),
	}, 0
}

// allowed returns the first credential of the list that this key made and whose
// protection permits its use.
func (k *Key) allowed(r *assertRequest, uv bool) *credential {
	for _, d := range r.Allow {
		if c := k.find(r.RP, d.ID); c != nil && (c.protect < 3 || uv) {
			return c
		}
	}
	return nil
}

// hmacSecret is the extension's processing, CTAP 2.1 §12.5.
func (k *Key) hmacSecret(r *hmacRequest, key []byte) ([]byte, status) {
	if r.Protocol == 0 {
		r.Protocol = 1
	}
	shared, s := k.sharedSecret(r.Protocol, r.KeyAgreement)
	if s != 0 {
		return nil, s
	}
	if !shared.verify(r.SaltAuth, r.SaltEnc) {
		return nil, statusPINAuthInvalid
	}
	salts, err := shared.decrypt(r.SaltEnc)
	if err != nil || len(salts) != 32 && len(salts) != 64 {
		return nil, statusInvalidLength
	}
	k.mu.Lock()
	fault := k.config.Fault
	k.stats.Secrets += len(salts) / 32
	k.mu.Unlock()
	if fault == FickleSecret {
		rand.Read(key)
	}
	var out []byte
	for ; len(salts) > 0; salts = salts[32:] {
		h := hmac.New(sha256.New, key)
		h.Write(salts[:32])
		out = h.Sum(out)
	}
	if fault == ShortSecret {
		out = out[:16]
	}
	return shared.encrypt(out), 0
}
