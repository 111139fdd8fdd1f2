package tpm2

import (
	"bytes"
	"encoding/hex"
	"encoding/json"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Versions of systemd from which on a form of the token is understood
// (docs/formats.md, "systemd-tpm2").
const (
	sinceTPM2      = 248
	sinceBank      = 250
	sincePIN       = 251
	sinceSigned    = 252
	sinceSalt      = 253
	sinceSRK       = 254
	sincePCRLock   = 255
	sinceOffline   = 255
	sinceOmit      = 256 // booleans that are false, the bank without PCRs
	sincePCRLockNV = 256
	sinceShards    = 257
	sinceArgon2id  = 262
	sincePolicyRef = 262
	newestSystemd  = tokens.NewestSystemd
)

// property is something about a token that not every systemd knows.
type property struct {
	what  string
	since int
	// kept says that a token made in place of this one has it too. The
	// others follow from the systemd that has to read the new one.
	kept bool
}

// properties are those that a token has.
func (t *token) properties() []property {
	var list []property
	for _, p := range []struct {
		has bool
		property
	}{
		{t.Bank != 0 && t.Bank != chip.BankSHA256, property{"bank " + t.Bank.String(), sinceBank, true}},
		{t.PIN, property{"a PIN", sincePIN, true}},
		{t.salt != nil, property{"a PIN with a salt", sinceSalt, false}},
		{t.argon != nil, property{"a PIN stretched with Argon2id", sinceArgon2id, true}},
		{t.SignedPCRs != 0, property{"a signed policy", sinceSigned, true}},
		{t.Ref != nil, property{"a policy reference", sincePolicyRef, true}},
		{t.PCRLock, property{"a pcrlock policy", sincePCRLock, true}},
		{len(t.blobs) > 1, property{"a signed and a pcrlock policy together", sinceShards, true}},
		{t.Parent != nil, property{"a storage root key", sinceSRK, false}},
		{t.otherParent(), property{"another key than the SRK", sinceOffline, true}},
		{t.offline(), property{"an object sealed without the TPM", sinceOffline, false}},
	} {
		if p.has {
			list = append(list, p.property)
		}
	}
	return list
}

// OldestSystemd is the first version of systemd that reads a token of this form,
// 248 to 262; 0 if the token is malformed.
func OldestSystemd(raw json.RawMessage) int {
	t, err := parseToken(raw)
	if err != nil {
		return 0
	}
	oldest := sinceTPM2
	for _, p := range t.properties() {
		oldest = max(oldest, p.since)
	}
	return oldest
}

// tokenMembers is the token as it is written, with the members in systemd's
// order.
type tokenMembers struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Blob       any      `json:"tpm2-blob"`
	PCRs       []int    `json:"tpm2-pcrs"`
	Bank       string   `json:"tpm2-pcr-bank,omitempty"`
	PrimaryAlg string   `json:"tpm2-primary-alg,omitempty"`
	PolicyHash any      `json:"tpm2-policy-hash"`
	PIN        *bool    `json:"tpm2-pin,omitempty"`
	PCRLock    *bool    `json:"tpm2_pcrlock,omitempty"`
	PubkeyPCRs []int    `json:"tpm2_pubkey_pcrs,omitempty"`
	Pubkey     []byte   `json:"tpm2_pubkey,omitempty"`
	PubkeyRef  *string  `json:"tpm2_pubkey_ref,omitempty"`
	Salt       []byte   `json:"tpm2_salt,omitempty"`
	SRK        []byte   `json:"tpm2_srk,omitempty"`
	PCRLockNV  []byte   `json:"tpm2_pcrlock_nv,omitempty"`
	Memcost    uint64   `json:"tpm2_argon2id_memcost,omitempty"`
	Iterations uint64   `json:"tpm2_argon2id_iterations,omitempty"`
	Lanes      uint64   `json:"tpm2_argon2id_lanes,omitempty"`
	Extra      *extra   `json:"luksmith,omitempty"`
}

// marshalToken writes <, > and & as they are: JSON in a header is not a HTML.
func marshalToken(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// members is the token in the form for one version of systemd.
func (t *token) members(compat int) *tokenMembers {
	m := &tokenMembers{Type: tokenType, Keyslots: []string{}, PCRs: t.PCRs.List(), Salt: t.salt, PubkeyRef: t.Ref}
	var blobs [][]byte
	var hashes []string
	for i, b := range t.blobs {
		blobs = append(blobs, b.Bytes())
		hashes = append(hashes, hex.EncodeToString(t.policy[i][:]))
	}
	m.Blob, m.PolicyHash = blobs, hashes
	if len(blobs) == 1 {
		m.Blob, m.PolicyHash = blobs[0], hashes[0]
	}
	if compat >= sinceBank {
		m.PrimaryAlg = t.primaryAlg
		if compat < sinceOmit || (t.PCRs|t.SignedPCRs) != 0 {
			m.Bank = t.Bank.String()
		}
	}
	m.PIN = boolMember(t.PIN, compat >= sincePIN && compat < sinceOmit)
	m.PCRLock = boolMember(t.PCRLock, compat == sincePCRLock)
	if t.SignedPCRs != 0 {
		m.PubkeyPCRs, m.Pubkey = t.SignedPCRs.List(), t.Key.PEM
	}
	if compat >= sinceSRK {
		m.SRK = t.Parent.Resource().Bytes(chip.ResourceKey)
	}
	if t.NVIndex != nil && compat >= sincePCRLockNV {
		m.PCRLockNV = t.NVIndex.Bytes(chip.ResourceNV)
	}
	if t.argon != nil {
		m.Memcost, m.Iterations, m.Lanes = t.argon.Memory, t.argon.Iterations, t.argon.Lanes
	}
	return m
}

// boolMember is a boolean that is left out when it is false, unless the version
// of systemd always writes it.
func boolMember(v, always bool) *bool {
	if !v && !always {
		return nil
	}
	return &v
}
