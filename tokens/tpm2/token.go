package tpm2

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"luksmith/tokens"
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
	blobs  []sealedBlob
	policy []policyDigest // one per blob; equal to its authPolicy
	pcrs   pcrSet         // bound literally
	bank   bank           // 0: not recorded
	// primaryAlg is "ecc" or "rsa": the key to make when parent is nil.
	primaryAlg string
	parent     *parent // nil: a transient primary key, as systemd 248 to 253 used
	pin        bool
	salt       []byte // nil: the PIN is used as it is
	argon      *argonCost
	signedPCRs pcrSet // empty: no signed policy
	pubkey     *signingKey
	policyRef  *string // nil: none, which is not the same as empty
	pcrlock    bool
	nvIndex    *resource // nil: not recorded
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
	for _, read := range []func(*token, members) error{
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
	_ = tokens.ReadExtra(raw, &t.extra)
	return t, nil
}

// members are the members of a token by their exact names.
type members map[string]json.RawMessage

func malformed(field, format string, args ...any) error {
	return &tokens.FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// base64 reads a member as systemd does: standard alphabet, padding required,
// white space skipped.
func (m members) base64(name string) ([]byte, error) {
	var text string
	if present, err := tokens.Member(m, name, &text); err != nil || !present {
		return nil, err
	}
	return decodeBase64(name, text)
}

func decodeBase64(name, text string) ([]byte, error) {
	text = strings.Join(strings.Fields(text), "")
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, malformed(name, "is not base64")
	}
	if len(b) == 0 {
		return nil, malformed(name, "is empty")
	}
	return b, nil
}

// texts reads a member that is a string or, since systemd 257, an array of them.
func (m members) texts(name string) ([]string, error) {
	raw, ok := m[name]
	if !ok {
		return nil, malformed(name, "is missing")
	}
	if len(raw) > 0 && raw[0] == '[' {
		var list []*string
		if _, err := tokens.Member(m, name, &list); err != nil {
			return nil, err
		}
		texts := make([]string, 0, len(list))
		for _, s := range list {
			if s == nil {
				return nil, malformed(name, "has a null in its array")
			}
			texts = append(texts, *s)
		}
		return texts, nil
	}
	var one string
	_, err := tokens.Member(m, name, &one)
	return []string{one}, err
}

// pcrs reads an array of PCR numbers.
func (m members) pcrs(name string) (set pcrSet, present bool, err error) {
	var list []*int
	if present, err = tokens.Member(m, name, &list); err != nil || !present {
		return 0, present, err
	}
	for _, i := range list {
		switch {
		case i == nil:
			return 0, true, malformed(name, "has a null in its array")
		case *i < 0 || *i >= maxPCRs:
			return 0, true, malformed(name, "names PCR %d, the range is 0..%d", *i, maxPCRs-1)
		case set.has(*i):
			return 0, true, malformed(name, "names PCR %d twice", *i)
		}
		set |= 1 << *i
	}
	return set, true, nil
}

func (t *token) readPCRs(m members) error {
	set, present, err := m.pcrs(memberPCRs)
	if err != nil {
		return err
	}
	if !present {
		return malformed(memberPCRs, "is missing")
	}
	t.pcrs = set
	var name string
	if present, err = tokens.Member(m, memberBank, &name); err != nil || !present {
		return err
	}
	if t.bank, err = parseBank(name); err != nil {
		return malformed(memberBank, "%v", err)
	}
	return nil
}

func (t *token) readBlobs(m members) error {
	blobs, err := m.texts(memberBlob)
	if err != nil {
		return err
	}
	hashes, err := m.texts(memberPolicyHash)
	if err != nil {
		return err
	}
	if len(blobs) != 1 && len(blobs) != 2 {
		return malformed(memberBlob, "has %d elements, want 1 or 2", len(blobs))
	}
	if len(hashes) != len(blobs) {
		return malformed(memberPolicyHash, "has %d elements and %s has %d", len(hashes), memberBlob, len(blobs))
	}
	for i := range blobs {
		b, err := decodeBase64(memberBlob, blobs[i])
		if err != nil {
			return err
		}
		blob, err := parseBlob(b)
		if err != nil {
			return malformed(memberBlob, "%v", err)
		}
		t.blobs = append(t.blobs, blob)
		if err := t.readPolicyHash(hashes[i], blob); err != nil {
			return err
		}
	}
	return nil
}

func (t *token) readPolicyHash(text string, blob sealedBlob) error {
	var d policyDigest
	if hex.DecodedLen(len(text)) != len(d) {
		return malformed(memberPolicyHash, "has %d characters, want %d", len(text), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return malformed(memberPolicyHash, "is not hexadecimal")
	}
	if d != blob.policy() {
		return malformed(memberPolicyHash, "is not the policy of the sealed object")
	}
	t.policy = append(t.policy, d)
	return nil
}

func (t *token) readPIN(m members) error {
	if _, err := tokens.Member(m, memberPIN, &t.pin); err != nil {
		return err
	}
	var err error
	if t.salt, err = m.base64(memberSalt); err != nil {
		return err
	}
	if len(t.salt) > maxSalt {
		return malformed(memberSalt, "has %d bytes", len(t.salt))
	}
	return nil
}

func (t *token) readArgon(m members) error {
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
			return malformed(member.name, "is %d", *member.v)
		}
	}
	if count == 0 {
		return nil
	}
	if count != 3 {
		return malformed(memberMemcost, "stands without the other two tpm2_argon2id members or they without it")
	}
	if t.salt == nil {
		return malformed(memberSalt, "is missing, and %s needs it", memberMemcost)
	}
	t.argon = &argonCost{memory: memory, iterations: iterations, lanes: lanes}
	if err := t.argon.check(); err != nil {
		return malformed(memberMemcost, "%v", err)
	}
	return nil
}

func (t *token) readSigned(m members) error {
	set, _, err := m.pcrs(memberPubkeyPCRs)
	if err != nil {
		return err
	}
	t.signedPCRs = set
	pem, err := m.base64(memberPubkey)
	if err != nil {
		return err
	}
	if pem == nil && set != 0 {
		return malformed(memberPubkey, "is missing, and %s needs it", memberPubkeyPCRs)
	}
	if pem != nil {
		if t.pubkey, err = parseSigningKey(pem); err != nil {
			return malformed(memberPubkey, "%v", err)
		}
	}
	var ref string
	present, err := tokens.Member(m, memberPubkeyRef, &ref)
	if present {
		t.policyRef = &ref
	}
	return err
}

func (t *token) readParent(m members) error {
	if present, err := tokens.Member(m, memberPrimaryAlg, &t.primaryAlg); err != nil {
		return err
	} else if present && t.primaryAlg != "ecc" && t.primaryAlg != "rsa" {
		return malformed(memberPrimaryAlg, "is neither ecc nor rsa")
	}
	b, err := m.base64(memberSRK)
	if err != nil || b == nil {
		return err
	}
	if t.parent, err = parseParent(b); err != nil {
		return malformed(memberSRK, "%v", err)
	}
	return nil
}

func (t *token) readPCRLock(m members) error {
	if _, err := tokens.Member(m, memberPCRLock, &t.pcrlock); err != nil {
		return err
	}
	b, err := m.base64(memberPCRLockNV)
	if err != nil || b == nil {
		return err
	}
	if t.nvIndex, err = parseNVIndex(b); err != nil {
		return malformed(memberPCRLockNV, "%v", err)
	}
	return nil
}

// checkShards wants two halves exactly where two policies have to be satisfied.
func (t *token) checkShards(members) error {
	want := 1
	if t.signedPCRs != 0 && t.pcrlock {
		want = 2
	}
	if len(t.blobs) != want {
		return malformed(memberBlob, "has %d sealed objects where the policies of the token make %d", len(t.blobs), want)
	}
	return nil
}

// offline reports whether the object was sealed without the TPM.
func (t *token) offline() bool { return t.blobs[0].seed != nil }

// otherParent reports whether the token was sealed under a persistent key that is
// not the storage root key.
func (t *token) otherParent() bool {
	return t.parent != nil && t.parent.handle>>24 == handlePersistent && t.parent.handle != handleSRK
}

// sameConditions reports whether two tokens open under the same conditions,
// whatever values the PCRs had when they were made.
func (t *token) sameConditions(o *token) bool {
	return t.pcrs == o.pcrs && t.pin == o.pin && (t.argon == nil) == (o.argon == nil) && t.pcrlock == o.pcrlock &&
		t.signedPCRs == o.signedPCRs && (t.signedPCRs == 0 || sameKey(t.pubkey, o.pubkey)) && string(policyRef(t.policyRef)) == string(policyRef(o.policyRef))
}
