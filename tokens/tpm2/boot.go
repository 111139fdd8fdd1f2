package tpm2

import "luksmith/tokens"

var _ tokens.BootNeeder = (*Handler)(nil)

// BootNeeds implements [tokens.BootNeeder]: which bus the chip is on is not known.
func (*Handler) BootNeeds() tokens.BootNeeds {
	return tokens.BootNeeds{Folders: []string{"drivers/char/tpm"}}
}
