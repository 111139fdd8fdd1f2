package pkcs11

import (
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

var _ tokens.BootNeeder = (*Handler)(nil)

// BootNeeds implements [tokens.BootNeeder]. What the PKCS#11 module itself needs is not
// known here: docs/piv.md has an example.
func (*Handler) BootNeeds() tokens.BootNeeds {
	return tokens.BootNeeds{Helpers: []string{wire.Program}, Opens: []tokens.Library{{Name: wire.Proxy, Option: moduleOption}}}
}
