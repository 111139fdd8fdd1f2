package fido2

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// Type is the "type" member of the tokens (systemd src/shared/libfido2-util.c and
// src/cryptenroll/cryptenroll-fido2.c, 248..262).
const Type = "systemd-fido2"

// DefaultRP is the relying party of all systemd tokens, meant where a token or
// crypttab names none.
const DefaultRP = "io.systemd.cryptsetup"

// Names of the members, docs/formats.md "systemd-fido2".
const (
	memberCredential = "fido2-credential"
	memberSalt       = "fido2-salt"
	memberRP         = "fido2-rp"
	memberPIN        = "fido2-clientPin-required"
	memberUP         = "fido2-up-required"
	memberUV         = "fido2-uv-required"
)

// SaltSize is the length of the salt that systemd writes and, since 257, demands.
const SaltSize = 32

// maxBase64 bounds the text of a base64 member before it is decoded.
const maxBase64 = 4096

// need is what a token says about one factor. Absent is not the same as false: a
// token of systemd 248 leaves the decision to the key.
type need uint8

const (
	ifAsked need = iota
	no
	yes
)

func needOf(b bool) need {
	if b {
		return yes
	}
	return no
}

// String is the form of list --json.
func (n need) String() string { return [...]string{"if-asked", "no", "yes"}[n] }

// parameters are all that a derivation takes besides the key itself: from a token,
// or from crypttab and a salt file.
type parameters struct {
	credential []byte // 1..wire.MaxCredentialID bytes
	salt       []byte // SaltSize bytes
	rp         string
	pin        need // client PIN
	up         need // user presence
	uv         need // user verification by the key itself; ifAsked leaves the option out
	label      string
	extra      extra
	ours       bool // the token has our member, so what it says was proven
}

// extra is the "luksmith" member of our tokens.
type extra struct {
	tokens.Extra
	// AAGUID is the model of the key in the form of a UUID.
	AAGUID string `json:"aaguid,omitempty"`
}

// parse checks every member of a token. Errors are *tokens.FieldError, or wrap
// tokens.ErrUnsupported for members that a newer systemd added; only with the
// latter are the parameters returned too.
func parse(t luks2.Token) (*parameters, error) {
	members, err := tokens.Members(t.Raw)
	if err != nil {
		return nil, err
	}
	f := fields{members: members}
	p := &parameters{
		credential: f.bytes(memberCredential, 1, wire.MaxCredentialID),
		salt:       f.bytes(memberSalt, SaltSize, SaltSize),
		rp:         f.rp(memberRP),
		pin:        f.need(memberPIN),
		up:         f.need(memberUP),
		uv:         f.need(memberUV),
	}
	if f.err != nil {
		return nil, f.err
	}
	// Nothing in our own member is needed to unlock: a broken one is not an error.
	_ = tokens.ReadExtra(t.Raw, &p.extra)
	p.label = string(p.extra.Label)
	_, p.ours = members[tokens.ExtraMember]
	if unknown := f.unknown(); unknown != "" {
		return p, fmt.Errorf("%w: member %.40q", tokens.ErrUnsupported, unknown)
	}
	return p, nil
}

// fields reads members and keeps the first error.
type fields struct {
	members map[string]json.RawMessage
	err     error
}

func (f *fields) fail(name, format string, args ...any) {
	f.keep(&tokens.FieldError{Field: name, Reason: fmt.Sprintf(format, args...)})
}

func (f *fields) keep(err error) {
	if f.err == nil {
		f.err = err
	}
}

// unknown is the first member of systemd's that this version does not know. Such
// a token may derive another way, and trying could cost a PIN try.
func (f *fields) unknown() string {
	known := []string{memberCredential, memberSalt, memberRP, memberPIN, memberUP, memberUV}
	for _, name := range slices.Sorted(maps.Keys(f.members)) {
		if strings.HasPrefix(name, "fido2") && !slices.Contains(known, name) {
			return name
		}
	}
	return ""
}

func (f *fields) bytes(name string, smallest, largest int) []byte {
	var text string // and not []byte, for which encoding/json would take no white space
	if err := tokens.NeedMember(f.members, name, &text); err != nil {
		f.keep(err)
		return nil
	}
	b, err := decodeBase64(text)
	switch {
	case err != nil:
		f.fail(name, "%v", err)
	case smallest == largest && len(b) != largest:
		f.fail(name, "has %d bytes instead of %d", len(b), largest)
	case len(b) < smallest || len(b) > largest:
		f.fail(name, "has %d bytes, %d to %d are possible", len(b), smallest, largest)
	}
	return b
}

func (f *fields) rp(name string) string {
	rp := DefaultRP
	if _, err := tokens.Member(f.members, name, &rp); err != nil {
		f.keep(err)
	} else if err := wire.CheckRP(rp); err != nil {
		f.fail(name, "%v", err)
	}
	return rp
}

func (f *fields) need(name string) need {
	var b bool
	present, err := tokens.Member(f.members, name, &b)
	if err != nil {
		f.keep(err)
	}
	if !present {
		return ifAsked
	}
	return needOf(b)
}

// decodeBase64 reads the standard padded alphabet and skips white space, as
// systemd's decoder does.
func decodeBase64(text string) ([]byte, error) {
	if len(text) > maxBase64 {
		return nil, fmt.Errorf("has %d characters of base64, at most %d are possible", len(text), maxBase64)
	}
	text = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n", r) {
			return -1
		}
		return r
	}, text)
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("is not base64: %w", err)
	}
	return b, nil
}

// build makes the token with systemd's members in systemd's order and ours behind
// them. All three needs must be known.
func (p *parameters) build() (json.RawMessage, error) {
	return json.Marshal(struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Credential []byte   `json:"fido2-credential"` // encoding/json writes []byte as padded base64
		Salt       []byte   `json:"fido2-salt"`
		RP         string   `json:"fido2-rp"`
		PIN        bool     `json:"fido2-clientPin-required"`
		UP         bool     `json:"fido2-up-required"`
		UV         bool     `json:"fido2-uv-required"`
		Extra      extra    `json:"luksmith"`
	}{Type, []string{}, p.credential, p.salt, p.rp, p.pin == yes, p.up == yes, p.uv == yes, p.extra})
}

// requires are the phrases of Description.Requires.
func (p *parameters) requires() []string {
	var list []string
	for _, r := range []struct {
		n    need
		text string
	}{{p.pin, "PIN"}, {p.uv, "user verification"}, {p.up, "touch"}} {
		switch {
		case r.n == yes:
			list = append(list, r.text)
		case r.n == ifAsked && r.text != "user verification":
			list = append(list, r.text+" if the key asks")
		}
	}
	return list
}

// cost is Description.Cost.
func (p *parameters) cost() int {
	switch {
	case p.pin == yes:
		return 20
	case p.up == no && p.uv != yes && p.pin == no:
		return 0
	}
	return 10
}

// crypttab are the options with which a volume without token opens, besides
// fido2-device=. The salt is in the key file.
func (p *parameters) crypttab() []string {
	list := []string{"fido2-cid=" + base64.StdEncoding.EncodeToString(p.credential)}
	if p.rp != DefaultRP {
		list = append(list, "fido2-rp="+p.rp)
	}
	for _, f := range []struct {
		name string
		n    need
	}{{"fido2-pin", p.pin}, {"fido2-up", p.up}, {"fido2-uv", p.uv}} {
		if f.n != ifAsked {
			list = append(list, f.name+"="+f.n.String())
		}
	}
	return list
}

// detail is the form of list --json: nothing from which the salt or the
// credential could be rebuilt.
type detail struct {
	RP              string `json:"rp"`
	CredentialBytes int    `json:"credential_bytes"`
	PIN             string `json:"pin"`
	UP              string `json:"up"`
	UV              string `json:"uv"`
	Device          string `json:"device,omitempty"`
	AAGUID          string `json:"aaguid,omitempty"`
	Created         string `json:"created,omitempty"`
}

// Describe implements [tokens.Handler].
func (*Handler) Describe(t luks2.Token) (tokens.Description, error) {
	p, err := parse(t)
	if p == nil {
		return tokens.Description{}, err
	}
	d := tokens.Description{
		Label: p.label, Requires: p.requires(), Cost: p.cost(),
		Detail: detail{p.rp, len(p.credential), p.pin.String(), p.up.String(), p.uv.String(),
			p.extra.Device, p.extra.AAGUID, p.extra.Created},
	}
	if err != nil {
		d.Unusable = "made by a newer systemd: " + err.Error()
	}
	return d, nil
}

// printable makes text from a device fit for a label: valid, one line, at most
// n bytes, without control characters.
func printable(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return strings.TrimSpace(s)
}
