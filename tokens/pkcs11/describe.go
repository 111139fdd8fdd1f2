package pkcs11

import (
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// Detail is the JSON form of a token for list --json.
type Detail struct {
	URI     string `json:"uri"`               // as in the token, without a query part
	Key     string `json:"key"`               // "RSA-2048", "P-256"
	Padding string `json:"padding,omitempty"` // of RSA: "pkcs1", "oaep-sha1", "oaep-sha256"
	// Upgrade says what Handler.Upgrade would put right: "padding" for PKCS#1
	// v1.5, "uri" for one that systemd cannot unlock with.
	Upgrade []string `json:"upgrade,omitempty"`
}

// costPIN is tokens.Description.Cost of a token that needs a PIN.
const costPIN = 20

// Describe implements tokens.Handler. Detail of the result is a Detail.
func (h *Handler) Describe(t luks2.Token) (tokens.Description, error) {
	r, err := parse(t.Raw)
	if err != nil {
		return tokens.Description{}, err
	}
	d := Detail{Key: r.kind(), Upgrade: r.flaws()}
	d.URI, _, _ = strings.Cut(r.text, "?")
	if !r.ec() {
		d.Padding = string(r.padding)
	}
	return tokens.Description{
		Label:    tokens.Label(t.Raw),
		Requires: requires(),
		Detail:   d,
		Unusable: r.unusable,
		Cost:     costPIN,
	}, nil
}

// requires is what unlocking needs. That a token has no PIN is rare, and only the
// token knows.
func requires() []string { return []string{"PIN"} }

// Words of Detail.Upgrade.
const (
	flawPadding = "padding"
	flawURI     = "uri"
)

// flaws lists what an upgrade would change.
func (r *record) flaws() []string {
	var list []string
	if !r.ec() && r.padding == wire.PKCS1 {
		list = append(list, flawPadding)
	}
	if r.uri.wrongClass() {
		list = append(list, flawURI)
	}
	return list
}
