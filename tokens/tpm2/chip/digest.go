package chip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// Digest is the digest of a policy session, computed here. systemd always
// uses SHA-256. The zero value is that of a session without any policy command,
// and the authPolicy of an object that needs none.
type Digest [sha256.Size]byte

// Digests are the policies of the objects that a secret is sealed in, in their order.
type Digests []Digest

// Equal reports whether the policies are the same ones.
func (d Digests) Equal(o Digests) bool { return slices.Equal(d, o) }

// extend is policyDigest = H(policyDigest ‖ command code ‖ parts), the pattern
// that all policy commands share (TPM 2.0 Part 1 §19.7.5).
func (d *Digest) extend(code tpm2.TPMCC, parts ...[]byte) {
	h := sha256.New()
	h.Write(d[:])
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(code)))
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(d[:0])
}

// PCR is TPM2_PolicyPCR (TPM 2.0 Part 3 §23.7).
func (d *Digest) PCR(b Bank, values PCRValues) {
	selection := tpm2.Marshal(values.Set().selection(b))
	d.extend(tpm2.TPMCCPolicyPCR, selection, values.digest())
}

// AuthValue is TPM2_PolicyAuthValue (§23.17).
func (d *Digest) AuthValue() { d.extend(tpm2.TPMCCPolicyAuthValue) }

// Authorize is TPM2_PolicyAuthorize (§23.16). It replaces what came before. ref
// may be empty.
func (d *Digest) Authorize(keyName, ref []byte) {
	*d = Digest{}
	d.extend(tpm2.TPMCCPolicyAuthorize, keyName)
	h := sha256.New()
	h.Write(d[:])
	h.Write(ref)
	h.Sum(d[:0])
}

// AuthorizeNV is TPM2_PolicyAuthorizeNV (§23.22). It replaces what came before.
func (d *Digest) AuthorizeNV(nvName []byte) {
	*d = Digest{}
	d.extend(tpm2.TPMCCPolicyAuthorizeNV, nvName)
}

// Or is TPM2_PolicyOR (§23.6). It replaces what came before.
func (d *Digest) Or(branches []Digest) {
	*d = Digest{}
	var all bytes.Buffer
	for _, b := range branches {
		all.Write(b[:])
	}
	d.extend(tpm2.TPMCCPolicyOR, all.Bytes())
}
