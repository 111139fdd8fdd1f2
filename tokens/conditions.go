package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"luksmith/luks2"
)

// Condition is one thing that a token demands, or that says so: a PIN, PCRs, a key
// that signs, a credential. Values are compared byte by byte.
type Condition struct{ Name, Value string }

// Conditional is a Handler whose tokens say in clear text under which conditions
// they open. Whoever can write the disk can edit that, so nobody may make a new key
// from an old token before [Set.Standing] said what its conditions are worth.
type Conditional interface {
	Handler
	// Conditions are everything in a token that decides under which conditions a
	// key made from it would open, the type aside, in an order that never changes.
	// docs/formats.md lists the names.
	Conditions(t luks2.Token) ([]Condition, error)
}

// Standing is what is known of the conditions that a token states.
type Standing int

const (
	// Unauthenticated: nothing vouches for them. The token is not ours, or its MAC
	// was made for another volume key (a re-encryption) or another keyslot, or the
	// header was edited to look so.
	Unauthenticated Standing = iota
	// Authentic: somebody who had the volume key enrolled the token with them.
	Authentic
	// Altered: they are not those that the token was enrolled with.
	Altered
)

// Parts of the "mac" member, in order: what it is for, a hash of the conditions
// that anybody can compute, the MAC. The hash serves those who have no key: it
// shows an edit by somebody who did not care, and nothing hangs on it.
const (
	macForSize  = 16
	macHashSize = 16
	macSize     = macForSize + macHashSize + sha256.Size
)

// memberMAC is in the "luksmith" member.
const memberMAC = "mac"

// conditionsOf is the canonical form of what a token on a keyslot demands, nil if
// its type has no conditions.
func (s Set) conditionsOf(t luks2.Token, k *luks2.Keyslot) ([]byte, error) {
	h, ok := s.ByType(t.Type).(Conditional)
	if !ok {
		return nil, nil
	}
	list, err := h.Conditions(t)
	if err != nil {
		return nil, err
	}
	list = append([]Condition{{"type", t.Type}}, append(list, Condition{"salt", string(k.KDF.Salt)})...)
	return canonical(list), nil
}

// canonical is name and value of each condition, each with its length before it.
func canonical(list []Condition) []byte {
	var b []byte
	for _, c := range list {
		for _, text := range []string{c.Name, c.Value} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
			b = append(b, text...)
		}
	}
	return b
}

// macFor names the volume key and the keyslot that a MAC is for. Another one is no
// sign of an attack: cryptsetup moves tokens and makes keyslots anew.
func macFor(f luks2.KeyFingerprint, k *luks2.Keyslot) []byte {
	sum := sha256.Sum256(append(f[:], k.KDF.Salt...))
	return sum[:macForSize]
}

// Authenticate returns a token for a keyslot with the MAC over its conditions. It
// is for a token that was made or checked in this call, never for one that was only
// read. Tokens of types without conditions come back as they are.
func (s Set) Authenticate(raw json.RawMessage, k *luks2.Keyslot, vk *luks2.VolumeKey) (json.RawMessage, error) {
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, err
	}
	text, err := s.conditionsOf(luks2.Token{Type: kind.Type, Raw: raw}, k)
	if err != nil || text == nil {
		return raw, err
	}
	hash, mac := sha256.Sum256(text), vk.ConditionsMAC(text)
	b := append(macFor(vk.Fingerprint(), k), hash[:macHashSize]...)
	return setExtra(raw, memberMAC, base64.StdEncoding.EncodeToString(append(b, mac[:]...)))
}

// Standing says what the conditions of a token are worth to whoever has the volume
// key.
func (s Set) Standing(h *luks2.Header, t luks2.Token, vk *luks2.VolumeKey) Standing {
	got, text, ok := s.readMAC(h, t, vk.Fingerprint())
	if !ok {
		return Unauthenticated
	}
	if want := vk.ConditionsMAC(text); !hmac.Equal(want[:], got[macForSize+macHashSize:]) {
		return Altered
	}
	return Authentic
}

// LooksAltered is as much of [Set.Standing] as can be told without the volume key:
// true is certain, false says nothing.
func (s Set) LooksAltered(h *luks2.Header, t luks2.Token) bool {
	got, text, ok := s.readMAC(h, t, h.KeyFingerprint())
	hash := sha256.Sum256(text)
	return ok && string(hash[:macHashSize]) != string(got[macForSize:][:macHashSize])
}

// readMAC returns the member of a token and the conditions that it should be for,
// if it is for this volume key and the keyslot of the token.
func (s Set) readMAC(h *luks2.Header, t luks2.Token, f luks2.KeyFingerprint) (mac, text []byte, ok bool) {
	var extra struct {
		MAC []byte `json:"mac"`
	}
	if ReadExtra(t.Raw, &extra) != nil || len(extra.MAC) != macSize || len(t.Keyslots) != 1 {
		return nil, nil, false
	}
	k, found := h.Keyslot(t.Keyslots[0])
	if !found || string(macFor(f, k)) != string(extra.MAC[:macForSize]) {
		return nil, nil, false
	}
	text, err := s.conditionsOf(t, k)
	if err != nil { // not even readable any more
		text = []byte{}
	}
	return extra.MAC, text, err != nil || text != nil
}
