package tpm2

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// ownSignature approves values of the signed PCRs of the token that it stands in. It
// needs no file in the initrd.
type ownSignature struct {
	Entry  string `json:"entry,omitempty"` // boot entry that leads to the values
	Policy []byte `json:"pol"`             // as in a signature file
	Sig    []byte `json:"sig"`
}

// maxOwnSignatures bounds those of a token.
const maxOwnSignatures = 64

// ownSignatures are those in the token. Like those of a file they are checked before
// they are used.
func (t *token) ownSignatures() (list []policy.Signature) {
	if t.extra.TPM2 == nil || t.Key == nil || len(t.extra.TPM2.Signatures) > maxOwnSignatures {
		return nil
	}
	for _, own := range t.extra.TPM2.Signatures {
		s := policy.Signature{Bank: t.Bank, PCRs: t.SignedPCRs, Fingerprint: t.Key.Fingerprint, Ref: t.Ref, Sig: own.Sig}
		if copy(s.Policy[:], own.Policy) == len(s.Policy) {
			list = append(list, s)
		}
	}
	return list
}

// SignatureFile is the text of a signature file with the signatures in tokens, for those
// who do not look there.
func SignatureFile(tokens []json.RawMessage) ([]byte, error) {
	var list []policy.Signature
	for _, raw := range tokens {
		t, err := parseToken(raw)
		if err != nil {
			return nil, err
		}
		list = append(list, t.ownSignatures()...)
	}
	return policy.FormatSignatures(list)
}

// SignedBy reports whether a token takes values that the owner of a key signs, and of
// which PCRs.
func (b *BootToken) SignedBy(key *rsa.PublicKey) (pcrs []int, ok bool) {
	t := b.parsed
	if t.SignedPCRs == 0 || t.Key.RSA == nil || t.PCRLock || t.Bank != chip.BankSHA256 || !t.Key.RSA.Equal(key) {
		return nil, false
	}
	return t.SignedPCRs.List(), true
}

// SignRequest says for which states a token is to have signatures.
type SignRequest struct {
	Key    *rsa.PrivateKey
	States []BootState
	// Keep are boot entries whose signatures stay, whatever they are for.
	Keep map[string]bool
	// Present are the values now. A signature for them stays; none is made.
	Present map[int][]byte
}

// Sign returns the token with these signatures and no others. changed is false when
// it has them already. Too many are luks2.ErrNoSpace.
func (b *BootToken) Sign(req *SignRequest) (raw json.RawMessage, changed bool, err error) {
	var list []ownSignature
	for i := range req.States {
		own, err := b.sign(req.Key, &req.States[i])
		if err != nil {
			return nil, false, err
		}
		list = append(list, own)
	}
	var present chip.Digest
	present.PCR(b.parsed.Bank, req.Present)
	for _, old := range b.signatures() {
		there := slices.ContainsFunc(list, func(s ownSignature) bool { return bytes.Equal(s.Policy, old.Policy) })
		if !there && (req.Keep[old.Entry] || bytes.Equal(old.Policy, present[:])) {
			list = append(list, old)
		}
	}
	if len(list) > maxOwnSignatures {
		return nil, false, fmt.Errorf("%w: %d states to sign, at most %d", luks2.ErrNoSpace, len(list), maxOwnSignatures)
	}
	return b.withSignatures(list)
}

func (b *BootToken) signatures() []ownSignature {
	if b.parsed.extra.TPM2 == nil {
		return nil
	}
	return b.parsed.extra.TPM2.Signatures
}

// sign makes one signature: the same for the same values.
func (b *BootToken) sign(key *rsa.PrivateKey, state *BootState) (ownSignature, error) {
	t := b.parsed
	s := policy.Signature{Bank: t.Bank, PCRs: t.SignedPCRs, Ref: t.Ref}
	s.Policy.PCR(t.Bank, state.PCRs)
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, s.SignedDigest())
	return ownSignature{Entry: state.Entry.ID, Policy: s.Policy[:], Sig: sig}, err
}

func (b *BootToken) withSignatures(list []ownSignature) (raw json.RawMessage, changed bool, err error) {
	was, err := json.Marshal(b.signatures())
	if err != nil {
		return nil, false, err
	}
	text, err := json.Marshal(list)
	if err != nil || bytes.Equal(was, text) {
		return b.Token.Raw, false, err
	}
	path := []string{tokens.ExtraMember, "tpm2", "signatures"}
	if b.parsed.extra.TPM2 == nil {
		path, text = path[:2], fmt.Appendf(nil, `{"signatures":%s}`, text)
	}
	raw, err = luks2.SetMember(b.Token.Raw, text, path...)
	return raw, err == nil, err
}
