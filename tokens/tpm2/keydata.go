package tpm2

import (
	"fmt"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// defaultKeyDataPCRs is what a sealed object in a key file is bound to when
// crypttab does not say: systemd's default of the time when there was no token.
const defaultKeyDataPCRs = chip.PCRSet(1 << 7)

// tokenFromKeyData makes a token of a sealed object that a key file holds, for
// volumes without a token in the header. Everything else comes from crypttab:
// tpm2-pcrs= and tpm2-pin=. As with systemd the bank is found out and the parent
// is the transient ECC key.
func (h *Handler) tokenFromKeyData(data secret.Secret) (*token, error) {
	blob, err := chip.ParseBlob(append([]byte(nil), data.Bytes()...)) // public: sealed by the TPM
	if err != nil {
		return nil, fmt.Errorf("%w: the key file %w", tokens.ErrMalformed, err)
	}
	t := &token{blobs: []chip.Blob{blob}, policy: []chip.Digest{blob.Policy()}, primaryAlg: "ecc"}
	t.PCRs, t.PIN = defaultKeyDataPCRs, h.KeyDataPIN
	if h.OnlyPCRs != nil {
		t.PCRs = *h.OnlyPCRs
	}
	return t, nil
}
