package fido2

import (
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

var _ tokens.BootNeeder = (*Handler)(nil)

// BootNeeds implements [tokens.BootNeeder].
func (*Handler) BootNeeds() tokens.BootNeeds {
	return tokens.BootNeeds{Modules: []string{"usbhid", "hid_generic"}, Helpers: []string{wire.Program}}
}
