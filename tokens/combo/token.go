package combo

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"luksmith/luks2/argon2id"
	"luksmith/tokens"
)

// Type is the type of the token. docs/formats.md has its members.
const Type = "luksmith-combo"

const (
	saltSize     = 32
	identitySize = 16
	// maxFactors bounds what a header can have this program look at, and the
	// number of keyslots of an enrolment.
	maxFactors = 6
	// maxWork bounds memory times passes of a passphrase's Argon2id, in KiB: about
	// two minutes of one core, as for keyslots.
	maxWork      = 128 << 20
	maxMemoryKiB = 4 << 20
	maxLanes     = 64
)

// token is a decoded luksmith-combo token.
type token struct {
	salt    []byte
	need    int // of so many factors that were enrolled together
	of      int
	factors []factor
}

// factor is one of the things that have to come together.
type factor struct {
	identity []byte
	name     string // of the handler, or "passphrase"
	// raw is the token of a device, empty for a passphrase.
	raw     json.RawMessage
	stretch argon2id.Params // of a passphrase
}

// passphraseFactor is the name of the factor that is typed.
const passphraseFactor = "passphrase"

// readToken decodes what stands in a header. Errors are [tokens.FieldError].
func readToken(raw json.RawMessage) (*token, error) {
	m, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	t := &token{}
	var list []json.RawMessage
	for _, member := range []struct {
		name string
		to   any
	}{{"combo-salt", &t.salt}, {"combo-need", &t.need}, {"combo-of", &t.of}, {"combo-factors", &list}} {
		if err := tokens.NeedMember(m, member.name, member.to); err != nil {
			return nil, err
		}
	}
	if err := t.check(len(list)); err != nil {
		return nil, err
	}
	for i, raw := range list {
		f, err := readFactor(raw)
		if err != nil {
			return nil, &tokens.FieldError{Field: "combo-factors", Reason: fmt.Sprintf("factor %d: %v", i, err)}
		}
		t.factors = append(t.factors, *f)
	}
	return t, nil
}

func (t *token) check(factors int) error {
	switch {
	case len(t.salt) != saltSize:
		return &tokens.FieldError{Field: "combo-salt", Reason: fmt.Sprintf("has %d bytes, want %d", len(t.salt), saltSize)}
	case factors < 2 || factors > maxFactors:
		return &tokens.FieldError{Field: "combo-factors", Reason: fmt.Sprintf("has %d factors, want 2 to %d", factors, maxFactors)}
	case t.need != factors:
		return &tokens.FieldError{Field: "combo-need", Reason: fmt.Sprintf("is %d for %d factors", t.need, factors)}
	case t.of < t.need || t.of > maxFactors:
		return &tokens.FieldError{Field: "combo-of", Reason: fmt.Sprintf("is %d for %d factors", t.of, factors)}
	}
	return nil
}

func readFactor(raw json.RawMessage) (*factor, error) {
	m, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	f := &factor{}
	if err := tokens.NeedMember(m, "factor", &f.name); err != nil {
		return nil, err
	}
	if err := tokens.NeedMember(m, "id", &f.identity); err != nil {
		return nil, err
	}
	if len(f.identity) != identitySize {
		return nil, &tokens.FieldError{Field: "id", Reason: fmt.Sprintf("has %d bytes, want %d", len(f.identity), identitySize)}
	}
	if f.name == passphraseFactor {
		return f, f.readStretch(m)
	}
	if f.raw = m["token"]; f.raw == nil {
		return nil, &tokens.FieldError{Field: "token", Reason: "is missing"}
	}
	_, err = tokens.Members(f.raw)
	return f, err
}

// readStretch reads how a passphrase is stretched, and refuses costs that would
// keep a machine busy for minutes.
func (f *factor) readStretch(m map[string]json.RawMessage) error {
	p := &f.stretch
	for _, member := range []struct {
		name string
		to   any
	}{{"salt", &p.Salt}, {"memory", &p.MemoryKiB}, {"time", &p.Time}, {"lanes", &p.Lanes}} {
		if err := tokens.NeedMember(m, member.name, member.to); err != nil {
			return err
		}
	}
	switch {
	case len(p.Salt) != saltSize:
		return &tokens.FieldError{Field: "salt", Reason: fmt.Sprintf("has %d bytes, want %d", len(p.Salt), saltSize)}
	case p.Lanes < 1 || p.Lanes > maxLanes:
		return &tokens.FieldError{Field: "lanes", Reason: fmt.Sprintf("is %d, want 1 to %d", p.Lanes, maxLanes)}
	case p.MemoryKiB < 8*p.Lanes || p.MemoryKiB > maxMemoryKiB:
		return &tokens.FieldError{Field: "memory", Reason: fmt.Sprintf("is %d KiB for %d lanes", p.MemoryKiB, p.Lanes)}
	case p.Time < 1 || p.Time > maxWork/p.MemoryKiB:
		return &tokens.FieldError{Field: "time", Reason: fmt.Sprintf("is %d with %d KiB", p.Time, p.MemoryKiB)}
	}
	return nil
}

// The JSON forms, in the order of docs/formats.md.
type tokenJSON struct {
	Type     string       `json:"type"`
	Keyslots []string     `json:"keyslots"`
	Need     int          `json:"combo-need"`
	Of       int          `json:"combo-of"`
	Salt     string       `json:"combo-salt"`
	Factors  []factorJSON `json:"combo-factors"`
	Extra    tokens.Extra `json:"luksmith"`
}

type factorJSON struct {
	Factor   string          `json:"factor"`
	Identity string          `json:"id"`
	Salt     string          `json:"salt,omitempty"`
	Memory   int             `json:"memory,omitempty"` // KiB
	Time     int             `json:"time,omitempty"`
	Lanes    int             `json:"lanes,omitempty"`
	Token    json.RawMessage `json:"token,omitempty"`
}

// marshal is the JSON object of a token.
func (t *token) marshal(extra tokens.Extra) (json.RawMessage, error) {
	v := tokenJSON{Type: Type, Keyslots: []string{}, Need: t.need, Of: t.of, Salt: encode(t.salt), Extra: extra}
	for _, f := range t.factors {
		j := factorJSON{Factor: f.name, Identity: encode(f.identity), Token: f.raw}
		if f.name == passphraseFactor {
			p := f.stretch
			j.Salt, j.Memory, j.Time, j.Lanes = encode(p.Salt), p.MemoryKiB, p.Time, p.Lanes
		}
		v.Factors = append(v.Factors, j)
	}
	return json.Marshal(v)
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
