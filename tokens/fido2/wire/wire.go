// Package wire is what luksmith-fido2 can be asked, as Go types: the requests, the
// answers, their limits, and both ends of the connection.
//
// The program that talks to the keys implements [Backend] and serves it with
// [Methods]; package fido2 calls it through [Client]. Neither end knows of the
// library behind the other, so another backend needs no change here.
//
// A backend does one thing per call and decides nothing: which key, which flags,
// whether to ask again is the caller's. Everything that crosses is checked at both
// ends, because a token in a header and the answer of a key are equally untrusted,
// and C libraries take sizes on trust.
package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"luksmith/luks2/secret"
)

// Program is the name of the helper program.
const Program = "luksmith-fido2"

// Limits of what a key can be given.
const (
	MaxCredentialID = 1023 // WebAuthn level 2 §4, "Credential ID"
	MaxRP           = 253  // a domain name
	MaxUser         = 64   // CTAP 2.1 §6.1.2: longer names may be refused
	SaltSize        = 32   // CTAP 2.1 §12.5, each of one or two salts
	MinPIN          = 4    // CTAP 2.1 §6.5.1: four code points, so four bytes or more
	MaxPIN          = 63   // the same, bytes of UTF-8
	MaxDevices      = 64
	MaxPath         = 4096
)

// Algorithm is a COSE number of a signature algorithm. The signature is never
// used; the algorithm only has to be one that the key knows.
type Algorithm int

// The algorithms of --fido2-credential-algorithm=.
const (
	ES256 Algorithm = -7
	EdDSA Algorithm = -8
	RS256 Algorithm = -257
)

// Option is a three-valued option of a request.
type Option int8

// The values of Option. Omit leaves the decision to the key.
const (
	Omit Option = iota
	True
	False
)

// Of turns a boolean into a given option.
func Of(b bool) Option {
	if b {
		return True
	}
	return False
}

// Device is a FIDO device that is plugged in. Manufacturer and Product are the
// device's own words and may be empty.
type Device struct {
	Path         string `json:"path"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Product      string `json:"product,omitempty"`
	Vendor       uint16 `json:"vendor,omitempty"` // USB numbers
	ProductID    uint16 `json:"product_id,omitempty"`
}

// Info is what a key says about itself (CTAP 2.1 §6.4). It may lie.
type Info struct {
	AAGUID     []byte          `json:"aaguid"` // 16 bytes
	Versions   []string        `json:"versions"`
	Extensions []string        `json:"extensions"`
	Options    map[string]bool `json:"options"`
	// PINRetries is what is left before the PIN is blocked for good; -1 when the
	// key has no PIN or does not tell.
	PINRetries int `json:"pin_retries"`
}

// NewCredential asks for a credential with the hmac-secret extension.
type NewCredential struct {
	Path        string    `json:"path"`
	RP          string    `json:"rp"`
	RPName      string    `json:"rp_name"`
	UserID      []byte    `json:"user_id"`
	UserName    string    `json:"user_name"`
	DisplayName string    `json:"display_name"`
	Algorithm   Algorithm `json:"algorithm"`
	RK          Option    `json:"rk"`
	UV          Option    `json:"uv"`
	// ProtectUV asks for credProtect level 3, user verification required.
	ProtectUV bool `json:"protect_uv"`
}

// Credential is the answer to NewCredential.
type Credential struct {
	ID []byte `json:"id"`
}

// Assertion asks for an assertion with one credential. With salts it derives
// secrets; without, it only tells whether the key holds the credential.
type Assertion struct {
	Path       string `json:"path"`
	RP         string `json:"rp"`
	Credential []byte `json:"credential"`
	UP         Option `json:"up"`
	UV         Option `json:"uv"`
}

// Asserted is the answer to Assertion.
type Asserted struct {
	UP bool `json:"up"` // the key says that the user was present
	UV bool `json:"uv"` // and was verified
	// Secret holds 32 bytes for each salt, empty without salts. The receiver
	// wipes it.
	Secret secret.Secret `json:"-"`
}

// Backend talks to keys. Errors are *helper.Error with one of the codes below.
// When ctx ends a backend cancels what the key is doing and returns soon; one that
// cannot gets killed with its process.
type Backend interface {
	// List returns the FIDO devices that are plugged in, without talking to them.
	List(ctx context.Context) ([]Device, error)
	// Info asks the key at path about itself.
	Info(ctx context.Context, path string) (*Info, error)
	// MakeCredential creates a credential. The PIN may be empty.
	MakeCredential(ctx context.Context, c *NewCredential, pin secret.Secret) (*Credential, error)
	// Assert makes an assertion. The PIN may be empty; salts are none, 32 or 64
	// bytes.
	Assert(ctx context.Context, a *Assertion, pin, salts secret.Secret) (*Asserted, error)
}

// CheckRP says why a relying party cannot be used.
func CheckRP(rp string) error {
	switch {
	case rp == "":
		return errors.New("is empty")
	case len(rp) > MaxRP:
		return fmt.Errorf("has %d bytes, at most %d are possible", len(rp), MaxRP)
	}
	return checkText(rp)
}

// CheckPIN says why a PIN cannot be that of any key. Such a PIN is not sent: it
// would cost a try.
func CheckPIN(pin secret.Secret) error {
	b := pin.Bytes()
	switch {
	case len(b) < MinPIN:
		return fmt.Errorf("PIN has fewer than %d bytes", MinPIN)
	case len(b) > MaxPIN:
		return fmt.Errorf("PIN has more than %d bytes", MaxPIN)
	}
	for _, c := range b {
		if c == 0 { // would end it early in C
			return errors.New("PIN has a zero byte")
		}
	}
	return nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) { // a zero byte would end the text early in C
			return fmt.Errorf("has the control character %U", r)
		}
	}
	return nil
}

func checkPath(path string) error {
	if path == "" || len(path) > MaxPath {
		return fmt.Errorf("path of %d bytes", len(path))
	}
	return checkText(path)
}

func checkOption(o Option) error {
	if o < Omit || o > False {
		return fmt.Errorf("option value %d", o)
	}
	return nil
}

func checkCredentialID(id []byte) error {
	if len(id) < 1 || len(id) > MaxCredentialID {
		return fmt.Errorf("credential id of %d bytes, 1 to %d are possible", len(id), MaxCredentialID)
	}
	return nil
}

func (c *NewCredential) check() error {
	var user error
	if len(c.UserID) < 1 || len(c.UserID) > MaxUser || c.UserName == "" || len(c.UserName) > MaxUser || len(c.DisplayName) > MaxUser {
		user = fmt.Errorf("user id of %d, name of %d, display name of %d bytes, at most %d are possible",
			len(c.UserID), len(c.UserName), len(c.DisplayName), MaxUser)
	}
	var algorithm error
	if c.Algorithm != ES256 && c.Algorithm != EdDSA && c.Algorithm != RS256 {
		algorithm = fmt.Errorf("algorithm %d", c.Algorithm)
	}
	return cmp.Or(checkPath(c.Path), CheckRP(c.RP), checkText(c.RPName), checkText(c.UserName), checkText(c.DisplayName),
		user, algorithm, checkOption(c.RK), checkOption(c.UV))
}

func (a *Assertion) check() error {
	return cmp.Or(checkPath(a.Path), CheckRP(a.RP), checkCredentialID(a.Credential), checkOption(a.UP), checkOption(a.UV))
}

func checkSalts(salts secret.Secret) error {
	if n := salts.Len(); n != 0 && n != SaltSize && n != 2*SaltSize {
		return fmt.Errorf("salts of %d bytes, %d or %d are possible", n, SaltSize, 2*SaltSize)
	}
	return nil
}

// check refuses answers that no key may give, before anybody relies on them.
func (i *Info) check() error {
	if len(i.AAGUID) != 16 {
		return fmt.Errorf("AAGUID of %d bytes", len(i.AAGUID))
	}
	if n := len(i.Versions) + len(i.Extensions) + len(i.Options); n > 256 {
		return fmt.Errorf("%d versions, extensions and options", n)
	}
	if i.PINRetries < -1 || i.PINRetries > 255 {
		return fmt.Errorf("%d PIN tries", i.PINRetries)
	}
	return nil
}
