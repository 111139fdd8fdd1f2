package tpm2

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Conditional = (*Handler)(nil)

// Conditions are what a token says of the state of the machine, the PIN and the
// TPM that it wants, and the policy that follows from that.
func (h *Handler) Conditions(raw luks2.Token) ([]tokens.Condition, error) {
	t, err := parseToken(raw.Raw)
	if err != nil {
		return nil, err
	}
	return t.canonical(), nil
}

// canonical is part of the format: docs/formats.md, "Authenticated conditions".
func (t *token) canonical() []tokens.Condition {
	return []tokens.Condition{
		{Name: "pcrs", Value: t.PCRs.String()},
		{Name: "bank", Value: t.bankName()},
		{Name: "pin", Value: t.pinForm()},
		{Name: "signed-pcrs", Value: t.SignedPCRs.String()},
		{Name: "signing-key", Value: t.signer()},
		{Name: "policy-ref", Value: t.refText()},
		{Name: "storage-key", Value: t.storageKey()},
		{Name: "pcrlock", Value: t.pcrlockText()},
		{Name: "policy", Value: t.policyText()},
	}
}

// bankName is empty where no PCR is looked at.
func (t *token) bankName() string {
	if t.PCRs|t.SignedPCRs == 0 || t.Bank == 0 {
		return ""
	}
	return t.Bank.String()
}

// signer is the hash of the PEM text of the key that signs values of PCRs.
func (t *token) signer() string {
	if t.SignedPCRs == 0 {
		return ""
	}
	sum := sha256.Sum256(t.Key.PEM)
	return hex.EncodeToString(sum[:])
}

// refText tells no policy reference from an empty one.
func (t *token) refText() string {
	if t.Ref == nil {
		return ""
	}
	return "=" + *t.Ref
}

// storageKey is the name of the key that the object is sealed under, or how that
// is made.
func (t *token) storageKey() string {
	if t.Parent == nil {
		return t.primaryAlg
	}
	return hex.EncodeToString(t.Parent.Name)
}

// pcrlockText is "yes", with the name of the NV index where the token has it.
func (t *token) pcrlockText() string {
	switch {
	case !t.PCRLock:
		return ""
	case t.NVIndex == nil:
		return "yes"
	}
	return "yes:" + hex.EncodeToString(t.NVIndex.Name)
}

func (t *token) policyText() string {
	var digests []string
	for _, d := range t.policy {
		digests = append(digests, hex.EncodeToString(d[:]))
	}
	return strings.Join(digests, "+")
}

// pinForm says whether there is a PIN and how much a guess at it costs.
func (t *token) pinForm() string {
	switch {
	case !t.PIN:
		return ""
	case t.argon != nil:
		return fmt.Sprintf("argon2id:%d:%d:%d", t.argon.Memory, t.argon.Iterations, t.argon.Lanes)
	case t.salt != nil:
		return "pbkdf2"
	}
	return "direct"
}
