package main

import (
	"path/filepath"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// rememberedKeys are the storage keys that the volume's line in crypttab names: a TPM with
// another one is given no PIN at boot, and so none here. A file that cannot be read names
// none.
func rememberedKeys(root string, v tokens.Volume) [][]byte {
	file, err := crypttab.Read(filepath.Join(root, systemCrypttab))
	if err != nil || !luks2.ValidUUID(v.UUID) {
		return nil
	}
	var h tpm2.Handler // which reading a line sets
	for i := range file.Entries {
		if e := &file.Entries[i]; e.IsAbout(v.UUID, v.Device) {
			_, _, _ = tokens.Set{&h}.Grammar().ParseOptions(e.Options) // lint says what is wrong
		}
	}
	return h.StorageKeys
}
