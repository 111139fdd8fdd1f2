package pkcs11

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// Type is the "type" member of the tokens.
const Type = "systemd-pkcs11"

// Members of a token. The first two since systemd 248, the third since 261.
const (
	memberURI     = "pkcs11-uri"
	memberKey     = "pkcs11-key"
	memberPadding = "pkcs11-padding"
)

// Limits of pkcs11-key: the shortest is a compressed point of a 256-bit curve, the
// longest an RSA ciphertext of 16384 bits, which OpenSSL takes for the maximum.
const (
	minKey = 33
	maxKey = 2048
)

// record is a token that was read.
type record struct {
	text    string // pkcs11-uri as it stands there
	uri     uri
	key     []byte // RSA ciphertext or EC point
	padding wire.Padding
	// unusable says why this version cannot unlock with it, see
	// tokens.Description; "" if it can.
	unusable string
}

// parse reads a token from a header.
func parse(raw json.RawMessage) (*record, error) {
	members, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	r := &record{padding: wire.PKCS1}
	var key, padding string
	if err := tokens.NeedMember(members, memberURI, &r.text); err != nil {
		return nil, err
	}
	if err := tokens.NeedMember(members, memberKey, &key); err != nil {
		return nil, err
	}
	if hasPadding, err := tokens.Member(members, memberPadding, &padding); err != nil {
		return nil, err
	} else if hasPadding {
		r.padding = wire.Padding(padding)
	}
	if err := r.readURI(); err != nil {
		return nil, err
	}
	if r.key, err = decodeKey(key); err != nil {
		return nil, err
	}
	r.judge(members)
	return r, nil
}

// readURI parses the text of the URI. One with an attribute of the future is well
// formed, but there is no telling what it selects.
func (r *record) readURI() error {
	u, err := parseHeaderURI(r.text)
	if unknown, ok := err.(*unknownAttributeError); ok {
		r.unusable = "its URI " + unknown.Error()
		err = nil
	}
	if err != nil {
		return &tokens.FieldError{Field: memberURI, Reason: err.Error()}
	}
	r.uri = u
	return nil
}

// decodeKey reads base64 as systemd does, which skips white space inside.
func decodeKey(text string) ([]byte, error) {
	text = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", "").Replace(text)
	if len(text) > base64.StdEncoding.EncodedLen(maxKey) {
		return nil, &tokens.FieldError{Field: memberKey, Reason: fmt.Sprintf("is longer than %d bytes", maxKey)}
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, &tokens.FieldError{Field: memberKey, Reason: err.Error()}
	}
	if len(key) < minKey {
		return nil, &tokens.FieldError{Field: memberKey, Reason: fmt.Sprintf("has %d bytes, at least %d are needed", len(key), minKey)}
	}
	return key, nil
}

// judge looks for features that this version does not know. A member of ours
// would be below "luksmith", so one with systemd's prefix is from the future.
func (r *record) judge(members map[string]json.RawMessage) {
	switch r.padding {
	case wire.PKCS1, wire.OAEPSHA1, wire.OAEPSHA256:
	default:
		r.unusable = fmt.Sprintf("made by a newer systemd: unknown padding %.40q", r.padding)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		future := strings.HasPrefix(name, "pkcs11-") || strings.HasPrefix(name, "pkcs11_")
		if future && name != memberURI && name != memberKey && name != memberPadding {
			r.unusable = fmt.Sprintf("made by a newer systemd: unknown member %.40q", name)
		}
	}
}

// kind says what pkcs11-key is made for: "RSA-2048", "P-256". The token does not
// say itself, but the lengths tell: those of RSA ciphertexts are even, those of
// points odd.
func (r *record) kind() string {
	n := len(r.key)
	if n%2 == 0 {
		return fmt.Sprintf("RSA-%d", 8*n)
	}
	for _, c := range curves {
		if n == c.pointSize() && r.key[0] == uncompressed {
			return c.name
		}
	}
	return fmt.Sprintf("EC, %d bits", 8*((n-1)/2))
}

// ec reports whether pkcs11-key is the point of an elliptic-curve key.
func (r *record) ec() bool { return len(r.key)%2 == 1 }

// encode makes the JSON object of a new token.
func (r *record) encode(extra tokens.Extra) (json.RawMessage, error) {
	object := struct {
		Type     string       `json:"type"`
		Keyslots []string     `json:"keyslots"`
		URI      string       `json:"pkcs11-uri"`
		Key      []byte       `json:"pkcs11-key"`
		Padding  string       `json:"pkcs11-padding,omitempty"`
		Extra    tokens.Extra `json:"luksmith"`
	}{Type: Type, Keyslots: []string{}, URI: r.uri.String(), Key: r.key, Padding: r.paddingMember(), Extra: extra}
	return encodeJSON(object)
}

// paddingMember is the value of pkcs11-padding, "" to leave it out: PKCS#1 v1.5
// never has one, so that systemd before 261 need not know it.
func (r *record) paddingMember() string {
	if r.padding == wire.PKCS1 || r.ec() {
		return ""
	}
	return string(r.padding)
}

// encodeJSON encodes on one line, and without the escapes that are for HTML.
func encodeJSON(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding token: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
