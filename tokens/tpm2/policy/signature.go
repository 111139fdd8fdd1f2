package policy

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Signatures is a parsed signature file.
type Signatures struct {
	Path    string
	Entries []Signature
}

// With adds signatures that are not from the file. f may be nil, which is no file.
func (f *Signatures) With(more []Signature) *Signatures {
	if len(more) == 0 {
		return f
	}
	all := Signatures{Path: "the token"}
	if f != nil {
		all.Path = f.Path + " and the token"
		all.Entries = f.Entries
	}
	all.Entries = append(slices.Clip(all.Entries), more...)
	return &all
}

// Signature says that the owner of a key approves a PCR policy.
type Signature struct {
	Bank        chip.Bank
	PCRs        chip.PCRSet
	Fingerprint [sha256.Size]byte
	Policy      chip.Digest // PolicyPCR over just these PCRs
	Ref         *string     // nil: none
	Sig         []byte      // RSASSA-PKCS1-v1_5 with SHA-256 over policy ‖ RefDigest(Ref)
}

// RefDigest is what stands for a policy reference in digests and signatures.
func RefDigest(ref *string) []byte {
	if ref == nil {
		return nil
	}
	sum := sha256.Sum256([]byte(*ref))
	return sum[:]
}

// SignedDigest is what a signature signs.
func (s *Signature) SignedDigest() []byte {
	h := sha256.New()
	h.Write(s.Policy[:])
	h.Write(RefDigest(s.Ref))
	return h.Sum(nil)
}

// Verify checks the signature without a TPM.
func (s *Signature) Verify(key *SigningKey) bool {
	return rsa.VerifyPKCS1v15(key.RSA, crypto.SHA256, s.SignedDigest(), s.Sig) == nil
}

// ParseSignatures reads {"BANK":[{"pcrs":[11],"pkfp":HEX,"pol":HEX,"sig":BASE64,
// "ref":TEXT},…],…}. Like systemd it skips banks that it does not know and entries
// that lack a member; members of the wrong type are errors.
func ParseSignatures(text []byte) ([]Signature, error) {
	banks, err := tokens.Members(text)
	if err != nil {
		return nil, errors.New("is not a JSON object")
	}
	var list []Signature
	for _, name := range slices.Sorted(maps.Keys(banks)) {
		b, err := chip.ParseBank(name)
		if err != nil {
			continue
		}
		var entries []json.RawMessage
		if _, err := tokens.Member(banks, name, &entries); err != nil {
			return nil, err
		}
		for i, raw := range entries {
			s, err := parseSignature(raw)
			if err != nil {
				return nil, fmt.Errorf("entry %d of %s: %w", i, name, err)
			}
			if s != nil {
				s.Bank = b
				list = append(list, *s)
			}
		}
	}
	return list, nil
}

// FormatSignatures is what ParseSignatures reads.
func FormatSignatures(list []Signature) ([]byte, error) {
	type entry struct {
		PCRs   []int   `json:"pcrs"`
		Key    string  `json:"pkfp"`
		Policy string  `json:"pol"`
		Sig    []byte  `json:"sig"`
		Ref    *string `json:"ref,omitempty"`
	}
	banks := map[string][]entry{}
	for _, s := range list {
		name := s.Bank.String()
		banks[name] = append(banks[name], entry{s.PCRs.List(), hex.EncodeToString(s.Fingerprint[:]), hex.EncodeToString(s.Policy[:]), s.Sig, s.Ref})
	}
	return json.Marshal(banks)
}

// parseSignature returns nil for an entry that is not complete.
func parseSignature(raw json.RawMessage) (*Signature, error) {
	all, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	m := Members(all)
	s := &Signature{}
	set, complete, err := m.PCRs("pcrs")
	if err != nil {
		return nil, err
	}
	s.PCRs = set
	for _, member := range []struct {
		name string
		dst  []byte
	}{{"pkfp", s.Fingerprint[:]}, {"pol", s.Policy[:]}} {
		var text string
		present, err := tokens.Member(all, member.name, &text)
		if err != nil {
			return nil, err
		}
		complete = complete && present
		if b, err := hex.DecodeString(text); present && (err != nil || copy(member.dst, b) != len(member.dst) || len(b) != len(member.dst)) {
			return nil, Malformed(member.name, "is not %d bytes in hexadecimal", len(member.dst))
		}
	}
	var text string
	present, err := tokens.Member(all, "sig", &text)
	if err != nil {
		return nil, err
	}
	if s.Sig, err = base64.StdEncoding.DecodeString(text); err != nil {
		return nil, Malformed("sig", "is not base64")
	}
	var ref string
	if hasRef, err := tokens.Member(all, "ref", &ref); err != nil {
		return nil, err
	} else if hasRef {
		s.Ref = &ref
	}
	if !complete || !present {
		return nil, nil
	}
	return s, nil
}

// Candidates are the valid signatures for a token's key, PCRs, bank and
// reference. The bank of the token decides, as for systemd.
func (f *Signatures) Candidates(key *SigningKey, b chip.Bank, set chip.PCRSet, ref *string) []Signature {
	var list []Signature
	for _, s := range f.Entries {
		sameRef := s.Ref == nil && ref == nil || s.Ref != nil && ref != nil && *s.Ref == *ref
		if s.Bank == b && s.PCRs == set && s.Fingerprint == key.Fingerprint && sameRef && s.Verify(key) {
			list = append(list, s)
		}
	}
	return list
}
