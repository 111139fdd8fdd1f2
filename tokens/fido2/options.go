package fido2

import (
	"fmt"
	"strings"

	"luksmith/crypttab"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// algorithms are in the order of their names.
var algorithms = [...]struct {
	name string
	is   wire.Algorithm
}{{"eddsa", wire.EdDSA}, {"es256", wire.ES256}, {"rs256", wire.RS256}}

// Options implements [tokens.Handler].
func (h *Handler) Options() []tokens.Option {
	const enroll, unlock, inCrypttab = tokens.Enrolling, tokens.Unlocking, tokens.Crypttab
	booleans := []string{"yes", "no"}
	return []tokens.Option{
		{Name: "fido2-device", Arg: "PATH|NAME|auto|list", Help: "enrol a FIDO2 security key", Place: enroll, Action: tokens.SelectEnroll,
			List: true, Since: 248, Values: []string{"auto", "list"}, Set: tokens.SetText(&h.Device)},
		{Name: "fido2-credential-algorithm", Arg: "ALGORITHM", Help: "signature algorithm of the new credential: es256, rs256 or eddsa",
			Place: enroll, Since: 251, Values: []string{"es256", "rs256", "eddsa"}, Set: h.setAlgorithm},
		{Name: "fido2-with-client-pin", Arg: "BOOL", Help: "whether unlocking needs the key's PIN", Place: enroll, Since: 249,
			Values: booleans, Set: setOptional(&h.WithPIN)},
		{Name: "fido2-with-user-presence", Arg: "BOOL", Help: "whether unlocking needs a touch", Place: enroll, Since: 249,
			Values: booleans, Set: setOptional(&h.WithUP)},
		{Name: "fido2-with-user-verification", Arg: "BOOL", Help: "whether the key has to verify the user, by fingerprint for example",
			Place: enroll, Since: 249, Values: booleans, Set: setOptional(&h.WithUV)},
		{Name: "fido2-salt-file", Arg: "PATH", Help: "take the salt from a file or socket, 32 bytes", Place: enroll, Since: 257,
			Set: tokens.SetText(&h.SaltFile)},
		{Name: "fido2-parameters-in-header", Arg: "BOOL", Help: "whether a token is written; if not, crypttab needs the parameters",
			Place: enroll, Since: 257, Values: booleans, Set: setOptional(&h.ParametersInHeader)},
		{Name: "allow-duplicate", Help: "enrol a security key that is enrolled on the volume already", Place: enroll,
			Set: tokens.SetSwitch(&h.AllowDuplicate)},
		{Name: "unlock-fido2-device", Arg: "PATH|NAME|auto", Help: "unlock the volume with a FIDO2 security key", Place: unlock,
			Action: tokens.SelectUnlock, Since: 253, Values: []string{"auto"}, Set: tokens.SetText(&h.UnlockDevice)},
		{Name: "fido2-device", Arg: "PATH|NAME|auto", Help: "unlock with a FIDO2 security key", Place: inCrypttab,
			Action: tokens.SelectUnlock, Since: 248, Values: []string{"auto"}, Set: tokens.Unusable(tokens.SetText(&h.UnlockDevice))},
		{Name: "fido2-cid", Arg: "BASE64|auto", Help: "credential id, for volumes without a token", Place: inCrypttab,
			Action: tokens.SelectUnlock, Since: 248, Values: []string{"auto"}, Fatal: true, NeedsKeyFile: true, Set: h.setCredential},
		{Name: "fido2-rp", Arg: "NAME", Help: "relying party of the credential id", Place: inCrypttab, Since: 248, Needs: "fido2-cid",
			Set: tokens.Unusable(h.setRP)},
		{Name: "fido2-pin", Arg: "BOOL", Help: "whether the credential id needs the key's PIN", Place: inCrypttab, Since: 257,
			Needs: "fido2-cid", Values: booleans, Set: setOptional(&h.NeedPIN)},
		{Name: "fido2-up", Arg: "BOOL", Help: "whether the credential id needs a touch", Place: inCrypttab, Since: 257,
			Needs: "fido2-cid", Values: booleans, Set: setOptional(&h.NeedUP)},
		{Name: "fido2-uv", Arg: "BOOL", Help: "whether the credential id needs the key to verify the user", Place: inCrypttab, Since: 257,
			Needs: "fido2-cid", Values: booleans, Set: setOptional(&h.NeedUV)},
	}
}

// setOptional stores a boolean that may also be left unset.
func setOptional(dst **bool) func(string) error {
	return func(value string) error {
		b, err := crypttab.ParseBool(value)
		if err == nil {
			*dst = &b
		}
		return err
	}
}

func (h *Handler) setAlgorithm(value string) error {
	var names []string
	for _, a := range algorithms {
		if a.name == value {
			h.Algorithm = a.is
			return nil
		}
		names = append(names, a.name)
	}
	return fmt.Errorf("%q is none of %s", value, strings.Join(names, ", "))
}

// setCredential takes "auto" as systemd does: the credential of the header's token.
func (h *Handler) setCredential(value string) error {
	if value == "auto" {
		h.Credential = nil
		return nil
	}
	id, err := decodeBase64(value)
	if err != nil {
		return fmt.Errorf("the credential id %w", err)
	}
	if len(id) < 1 || len(id) > wire.MaxCredentialID {
		return &crypttab.UnusableError{Err: fmt.Errorf("the credential id has %d bytes, 1 to %d are possible", len(id), wire.MaxCredentialID)}
	}
	h.Credential = id
	return nil
}

func (h *Handler) setRP(value string) error {
	if err := wire.CheckRP(value); err != nil {
		return fmt.Errorf("the relying party %w", err)
	}
	h.RP = value
	return nil
}

// unless is the value of an option, or what it means when it was not given.
func unless(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}
