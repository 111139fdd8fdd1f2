// Package all is the one list of token types.
package all

import (
	"luksmith/tokens"
	"luksmith/tokens/combo"
	"luksmith/tokens/fido2"
	"luksmith/tokens/pkcs11"
	"luksmith/tokens/recovery"
	"luksmith/tokens/tpm2"
)

// New returns new handlers of every type, in the order in which they are tried:
// the cheapest for the user first, the one that a person types last.
func New() tokens.Set {
	devices := tokens.Set{
		&tpm2.Handler{},
		&fido2.Handler{},
		&pkcs11.Handler{},
	}
	return append(devices, combo.New(devices), &recovery.Handler{})
}
