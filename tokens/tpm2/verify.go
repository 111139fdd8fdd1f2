package tpm2

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// VerifyRequest asks which entries of a signature file are of use.
type VerifyRequest struct {
	// Volume has the tokens whose keys count; --tpm2-public-key= adds one.
	Volume tokens.Volume
}

// SignatureVerdict is what is known of one entry of a signature file.
type SignatureVerdict struct {
	Entry     int    `json:"entry"` // number in the file, counted over all banks
	Bank      string `json:"bank"`
	PCRs      []int  `json:"pcrs"`
	PublicKey string `json:"public_key"` // its pkfp
	// PolicyRef is nil without one.
	PolicyRef *string `json:"policy_ref,omitempty"`
	Policy    string  `json:"policy"` // digest of the approved policy
	// Key says whether the public key is known, and if so whether it made the
	// signature: "unknown", "good" or "bad".
	Key string `json:"key"`
	// Current: the approved values are the present ones.
	Current bool `json:"current"`
	// Tokens are the ids of tokens that accept the entry.
	Tokens []int `json:"tokens"`
	// Unlocks: the entry satisfies the signed part of the policy of Tokens now.
	Unlocks bool `json:"unlocks"`
}

// Signatures is the result of VerifySignatures.
type Signatures struct {
	Path    string             `json:"path"`
	Entries []SignatureVerdict `json:"entries"`
}

// VerifySignatures tells for each entry of the signature file, that of
// --tpm2-signature= or the first in the usual places, whether its signature is
// good and whether it would unlock now.
func (h *Handler) VerifySignatures(ctx context.Context, req *VerifyRequest) (*Signatures, error) {
	file, err := h.loadSignatures()
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, tokens.WithHint(errors.New(h.noSignatureFile()), "name one with --tpm2-signature=")
	}
	known, err := h.knownSigners(req)
	if err != nil {
		return nil, err
	}
	c, err := h.connect(ctx, h.unlockDeviceOr())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	present := presentPolicies{c: c, digests: map[presentKey]*chip.Digest{}}
	result := &Signatures{Path: file.Path, Entries: make([]SignatureVerdict, 0, len(file.Entries))}
	for i := range file.Entries {
		v, err := known.judge(&file.Entries[i], &present)
		if err != nil {
			return nil, err
		}
		v.Entry = i
		result.Entries = append(result.Entries, v)
	}
	return result, nil
}

// signers are the keys that signatures may be made with, and the tokens that
// accept them.
type signers struct {
	keys   map[[32]byte]*policy.SigningKey
	tokens map[int]*token
}

func (h *Handler) knownSigners(req *VerifyRequest) (*signers, error) {
	s := &signers{keys: map[[32]byte]*policy.SigningKey{}, tokens: map[int]*token{}}
	path, text, err := h.findFile(h.PublicKey, publicKeyFile)
	if err != nil {
		return nil, tokens.Usagef("reading the public key: %w", err)
	}
	if text != nil {
		key, err := policy.ParseSigningKey(text)
		if err != nil {
			return nil, tokens.Usagef("the public key %s %w", path, err)
		}
		s.add(key)
	}
	for _, raw := range req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		if t, err := parseToken(raw.Raw); err == nil && t.SignedPCRs != 0 {
			s.tokens[raw.ID] = t
			s.add(t.Key)
		}
	}
	return s, nil
}

func (s *signers) add(key *policy.SigningKey) {
	if key.RSA != nil {
		s.keys[key.Fingerprint] = key
	}
}

func (s *signers) judge(e *policy.Signature, present *presentPolicies) (SignatureVerdict, error) {
	v := SignatureVerdict{Bank: e.Bank.String(), PCRs: e.PCRs.List(), PublicKey: hex.EncodeToString(e.Fingerprint[:]), PolicyRef: e.Ref,
		Policy: hex.EncodeToString(e.Policy[:]), Key: "unknown", Tokens: []int{}}
	if key := s.keys[e.Fingerprint]; key != nil {
		v.Key = "bad"
		if e.Verify(key) {
			v.Key = "good"
		}
	}
	digest, err := present.of(e.Bank, e.PCRs)
	if err != nil {
		return v, err
	}
	v.Current = digest != nil && *digest == e.Policy
	for id := range luks2.MaxTokens {
		t := s.tokens[id]
		if t == nil || v.Key != "good" {
			continue
		}
		one := policy.Signatures{Entries: []policy.Signature{*e}}
		if len(one.Candidates(t.Key, t.Bank, t.SignedPCRs, t.Ref)) == 1 {
			v.Tokens = append(v.Tokens, id)
		}
	}
	v.Unlocks = v.Current && len(v.Tokens) > 0
	return v, nil
}

type presentKey struct {
	bank chip.Bank
	set  chip.PCRSet
}

// presentPolicies computes policies of the present PCR values, each once. A bank
// that the TPM does not keep has none.
type presentPolicies struct {
	c       *chip.Conn
	digests map[presentKey]*chip.Digest
}

func (p *presentPolicies) of(b chip.Bank, set chip.PCRSet) (*chip.Digest, error) {
	k := presentKey{b, set}
	if d, ok := p.digests[k]; ok {
		return d, nil
	}
	values, err := p.c.ReadPCRs(b, set)
	if err != nil && (p.c.Broken() || p.c.Context().Err() != nil) {
		return nil, fmt.Errorf("reading the PCRs: %w", err)
	}
	p.digests[k] = nil
	if err == nil {
		d := &chip.Digest{}
		d.PCR(b, values)
		p.digests[k] = d
	}
	return p.digests[k], nil
}
