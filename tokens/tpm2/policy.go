package tpm2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// policyDigest is the digest of a policy session, computed here. systemd always
// uses SHA-256. The zero value is that of a session without any policy command,
// and the authPolicy of an object that needs none.
type policyDigest [sha256.Size]byte

// extend is policyDigest = H(policyDigest ‖ command code ‖ parts), the pattern
// that all policy commands share (TPM 2.0 Part 1 §19.7.5).
func (d *policyDigest) extend(code tpm2.TPMCC, parts ...[]byte) {
	h := sha256.New()
	h.Write(d[:])
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(code)))
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(d[:0])
}

// pcr is TPM2_PolicyPCR (TPM 2.0 Part 3 §23.7).
func (d *policyDigest) pcr(b bank, values pcrValues) {
	selection := tpm2.Marshal(values.set().selection(b))
	d.extend(tpm2.TPMCCPolicyPCR, selection, values.digest())
}

// authValue is TPM2_PolicyAuthValue (§23.17).
func (d *policyDigest) authValue() { d.extend(tpm2.TPMCCPolicyAuthValue) }

// authorize is TPM2_PolicyAuthorize (§23.16). It replaces what came before. ref
// may be empty.
func (d *policyDigest) authorize(keyName, ref []byte) {
	*d = policyDigest{}
	d.extend(tpm2.TPMCCPolicyAuthorize, keyName)
	h := sha256.New()
	h.Write(d[:])
	h.Write(ref)
	h.Sum(d[:0])
}

// authorizeNV is TPM2_PolicyAuthorizeNV (§23.22). It replaces what came before.
func (d *policyDigest) authorizeNV(nvName []byte) {
	*d = policyDigest{}
	d.extend(tpm2.TPMCCPolicyAuthorizeNV, nvName)
}

// or is TPM2_PolicyOR (§23.6). It replaces what came before.
func (d *policyDigest) or(branches []policyDigest) {
	*d = policyDigest{}
	var all bytes.Buffer
	for _, b := range branches {
		all.Write(b[:])
	}
	d.extend(tpm2.TPMCCPolicyOR, all.Bytes())
}
