package tpm2

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// tokenType is the "type" member.
const tokenType = "systemd-tpm2"

// Members of the token, in the order in which systemd writes them. Dashes are the
// names of systemd 248 to 251, underscores came later.
const (
	memberBlob       = "tpm2-blob"
	memberPCRs       = "tpm2-pcrs"
	memberBank       = "tpm2-pcr-bank"
	memberPrimaryAlg = "tpm2-primary-alg"
	memberPolicyHash = "tpm2-policy-hash"
	memberPIN        = "tpm2-pin"
	memberPCRLock    = "tpm2_pcrlock"
	memberPubkeyPCRs = "tpm2_pubkey_pcrs"
	memberPubkey     = "tpm2_pubkey"
	memberPubkeyRef  = "tpm2_pubkey_ref"
	memberSalt       = "tpm2_salt"
	memberSRK        = "tpm2_srk"
	memberPCRLockNV  = "tpm2_pcrlock_nv"
	memberMemcost    = "tpm2_argon2id_memcost"
	memberIterations = "tpm2_argon2id_iterations"
	memberLanes      = "tpm2_argon2id_lanes"
)

var knownMembers = []string{
	memberBlob, memberPCRs, memberBank, memberPrimaryAlg, memberPolicyHash, memberPIN, memberPCRLock, memberPubkeyPCRs, memberPubkey,
	memberPubkeyRef, memberSalt, memberSRK, memberPCRLockNV, memberMemcost, memberIterations, memberLanes,
}

// token is a parsed systemd-tpm2 token. Everything in it comes from the header,
// is checked for shape, and is otherwise untrusted.
type token struct {
	// blobs holds one sealed object, or two when the key is in two halves: the
	// first under the signed policy, the second under the pcrlock policy.
	blobs  []chip.Blob
	policy chip.Digests // one per blob; equal to its authPolicy
	policy.Conditions
	// primaryAlg is "ecc" or "rsa": the key to make when parent is nil.
	primaryAlg string
	salt       []byte // nil: the PIN is used as it is
	argon      *Argon2idCost
	extra      extra
	unknown    []string // members named tpm2… that this version does not know
}

// parseToken reads a token. Errors are *tokens.FieldError.
func parseToken(raw json.RawMessage) (*token, error) {
	m, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	t := &token{primaryAlg: "ecc"}
	for _, read := range []func(*token, policy.Members) error{
		(*token).readPCRs, (*token).readBlobs, (*token).readPIN, (*token).readArgon, (*token).readSigned, (*token).readParent, (*token).readPCRLock,
		(*token).checkShards,
	} {
		if err := read(t, m); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(name, "tpm2") && !slices.Contains(knownMembers, name) {
			t.unknown = append(t.unknown, name)
		}
	}
	// Nothing in our own member is needed to unlock, so whatever is wrong there
	// only costs what it would have told.
	_, _ = tokens.Member(m, tokens.ExtraMember, &t.extra)
	return t, nil
}

func (t *token) readPCRs(m policy.Members) error {
	set, present, err := m.PCRs(memberPCRs)
	if err != nil {
		return err
	}
	if !present {
		return policy.Malformed(memberPCRs, "is missing")
	}
	t.PCRs = set
	var name string
	if present, err = tokens.Member(m, memberBank, &name); err != nil || !present {
		return err
	}
	if t.Bank, err = chip.ParseBank(name); err != nil {
		return policy.Malformed(memberBank, "%v", err)
	}
	return nil
}

func (t *token) readBlobs(m policy.Members) error {
	blobs, err := m.Texts(memberBlob)
	if err != nil {
		return err
	}
	hashes, err := m.Texts(memberPolicyHash)
	if err != nil {
		return err
	}
	if len(blobs) != 1 && len(blobs) != 2 {
		return policy.Malformed(memberBlob, "has %d elements, want 1 or 2", len(blobs))
	}
	if len(hashes) != len(blobs) {
		return policy.Malformed(memberPolicyHash, "has %d elements and %s has %d", len(hashes), memberBlob, len(blobs))
	}
	for i := range blobs {
		b, err := policy.DecodeBase64(memberBlob, blobs[i])
		if err != nil {
			return err
		}
		blob, err := chip.ParseBlob(b)
		if err != nil {
			return policy.Malformed(memberBlob, "%v", err)
		}
		t.blobs = append(t.blobs, blob)
		if err := t.readPolicyHash(hashes[i], blob); err != nil {
			return err
		}
	}
	return nil
}

func (t *token) readPolicyHash(text string, blob chip.Blob) error {
	var d chip.Digest
	if hex.DecodedLen(len(text)) != len(d) {
		return policy.Malformed(memberPolicyHash, "has %d characters, want %d", len(text), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return policy.Malformed(memberPolicyHash, "is not hexadecimal")
	}
	if d != blob.Policy() {
		return policy.Malformed(memberPolicyHash, "is not the policy of the sealed object")
	}
	t.policy = append(t.policy, d)
	return nil
}

func (t *token) readPIN(m policy.Members) error {
	if _, err := tokens.Member(m, memberPIN, &t.PIN); err != nil {
		return err
	}
	var err error
	if t.salt, err = m.Base64(memberSalt); err != nil {
		return err
	}
	if len(t.salt) > maxSalt {
		return policy.Malformed(memberSalt, "has %d bytes", len(t.salt))
	}
	return nil
}

func (t *token) readArgon(m policy.Members) error {
	var memory, iterations, lanes uint64
	count := 0
	for _, member := range []struct {
		name string
		v    *uint64
	}{{memberMemcost, &memory}, {memberIterations, &iterations}, {memberLanes, &lanes}} {
		present, err := tokens.Member(m, member.name, member.v)
		if err != nil {
			return err
		}
		if !present {
			continue
		}
		count++
		if *member.v == 0 || *member.v > 1<<32-1 && member.v != &memory {
			return policy.Malformed(member.name, "is %d", *member.v)
		}
	}
	if count == 0 {
		return nil
	}
	if count != 3 {
		return policy.Malformed(memberMemcost, "stands without the other two tpm2_argon2id members or they without it")
	}
	if t.salt == nil {
		return policy.Malformed(memberSalt, "is missing, and %s needs it", memberMemcost)
	}
	t.argon = &Argon2idCost{Memory: memory, Iterations: iterations, Lanes: lanes}
	if err := t.argon.check(); err != nil {
		return policy.Malformed(memberMemcost, "%v", err)
	}
	return nil
}

func (t *token) readSigned(m policy.Members) error {
	set, _, err := m.PCRs(memberPubkeyPCRs)
	if err != nil {
		return err
	}
	t.SignedPCRs = set
	pem, err := m.Base64(memberPubkey)
	if err != nil {
		return err
	}
	if pem == nil && set != 0 {
		return policy.Malformed(memberPubkey, "is missing, and %s needs it", memberPubkeyPCRs)
	}
	if pem != nil {
		if t.Key, err = policy.ParseSigningKey(pem); err != nil {
			return policy.Malformed(memberPubkey, "%v", err)
		}
	}
	var ref string
	present, err := tokens.Member(m, memberPubkeyRef, &ref)
	if present {
		t.Ref = &ref
	}
	return err
}

func (t *token) readParent(m policy.Members) error {
	if present, err := tokens.Member(m, memberPrimaryAlg, &t.primaryAlg); err != nil {
		return err
	} else if present && t.primaryAlg != "ecc" && t.primaryAlg != "rsa" {
		return policy.Malformed(memberPrimaryAlg, "is neither ecc nor rsa")
	}
	b, err := m.Base64(memberSRK)
	if err != nil || b == nil {
		return err
	}
	if t.Parent, err = chip.ParseParent(b); err != nil {
		return policy.Malformed(memberSRK, "%v", err)
	}
	return nil
}

func (t *token) readPCRLock(m policy.Members) error {
	if _, err := tokens.Member(m, memberPCRLock, &t.PCRLock); err != nil {
		return err
	}
	b, err := m.Base64(memberPCRLockNV)
	if err != nil || b == nil {
		return err
	}
	if t.NVIndex, err = chip.ParseNVIndex(b); err != nil {
		return policy.Malformed(memberPCRLockNV, "%v", err)
	}
	return nil
}

// checkShards wants two halves exactly where two policies have to be satisfied.
func (t *token) checkShards(policy.Members) error {
	want := 1
	if t.SignedPCRs != 0 && t.PCRLock {
		want = 2
	}
	if len(t.blobs) != want {
		return policy.Malformed(memberBlob, "has %d sealed objects where the policies of the token make %d", len(t.blobs), want)
	}
	return nil
}

// offline reports whether the object was sealed without the TPM.
func (t *token) offline() bool { return t.blobs[0].Seed != nil }

// otherParent reports whether the token was sealed under a persistent key that is
// not the storage root key.
func (t *token) otherParent() bool {
	return t.Parent != nil && t.Parent.Handle>>24 == chip.HandlePersistent && t.Parent.Handle != chip.HandleSRK
}

// sameConditions reports whether two tokens open under the same conditions,
// whatever values the PCRs had when they were made.
func (t *token) sameConditions(o *token) bool {
	return t.PCRs == o.PCRs && t.PIN == o.PIN && (t.argon == nil) == (o.argon == nil) && t.PCRLock == o.PCRLock &&
		t.SignedPCRs == o.SignedPCRs && (t.SignedPCRs == 0 || policy.SameKey(t.Key, o.Key)) && string(policy.RefDigest(t.Ref)) == string(policy.RefDigest(o.Ref))
}
