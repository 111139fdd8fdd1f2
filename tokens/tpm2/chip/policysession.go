package chip

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// BoundPCRs are what TPM2_PolicyPCR binds a session to.
type BoundPCRs struct {
	Bank Bank
	Set  PCRSet
	// Values have to be the present ones; nil takes whatever these are.
	Values PCRValues
}

// StartPolicy makes a policy session.
func (c *Conn) StartPolicy(p *Parent) (*Session, error) {
	return c.startSession(p, sessionOptions{kind: tpm2.TPMSEPolicy})
}

// PolicyPCR binds the session to the present values of PCRs.
func (c *Conn) PolicyPCR(s *Session, b BoundPCRs) error {
	cmd := tpm2.PolicyPCR{PolicySession: s.handle, Pcrs: b.Set.selection(b.Bank)}
	if b.Values != nil {
		cmd.PcrDigest = tpm2.TPM2BDigest{Buffer: b.Values.digest()}
	}
	_, err := run(c, "TPM2_PolicyPCR", cmd)
	return err
}

// PolicyAuthValue binds the session to the auth value of the object, which a PIN
// gives.
func (c *Conn) PolicyAuthValue(s *Session) error {
	_, err := run(c, "TPM2_PolicyAuthValue", tpm2.PolicyAuthValue{PolicySession: s.handle})
	return err
}

// PolicyGetDigest is how far the session got.
func (c *Conn) PolicyGetDigest(s *Session) (Digest, error) {
	rsp, err := run(c, "TPM2_PolicyGetDigest", tpm2.PolicyGetDigest{PolicySession: s.handle})
	if err != nil {
		return Digest{}, err
	}
	var d Digest
	if len(rsp.PolicyDigest.Buffer) != len(d) {
		return d, fmt.Errorf("TPM2_PolicyGetDigest: a digest of %d bytes", len(rsp.PolicyDigest.Buffer))
	}
	return Digest(rsp.PolicyDigest.Buffer), nil
}

// Approval is a signature that approves a policy.
type Approval struct {
	Public    []byte // TPMT_PUBLIC of the signing key, RSA
	Policy    Digest // that is approved
	Ref       []byte // SHA-256 of the policy reference; empty without one
	Digest    []byte // that is signed
	Signature []byte // RSASSA-PKCS1-v1_5 with SHA-256
}

// PolicyAuthorize shows a signature to the TPM, which checks it with the public
// key and turns it into a ticket for PolicyAuthorize.
func (c *Conn) PolicyAuthorize(s *Session, a *Approval) error {
	key, err := run(c, "TPM2_LoadExternal", tpm2.LoadExternal{InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](a.Public), Hierarchy: tpm2.TPMRHOwner})
	if err != nil {
		return err
	}
	name := tpm2.TPM2BName{Buffer: ObjectName(a.Public)}
	verified, err := run(c, "TPM2_VerifySignature", tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: name},
		Digest:    tpm2.TPM2BDigest{Buffer: a.Digest},
		Signature: tpm2.TPMTSignature{
			SigAlg: tpm2.TPMAlgRSASSA,
			Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{
				Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: a.Signature},
			}),
		},
	})
	c.Flush(key.ObjectHandle)
	if err != nil {
		return err
	}
	_, err = run(c, "TPM2_PolicyAuthorize", tpm2.PolicyAuthorize{
		PolicySession:  s.handle,
		ApprovedPolicy: tpm2.TPM2BDigest{Buffer: a.Policy[:]},
		PolicyRef:      tpm2.TPM2BDigest{Buffer: a.Ref},
		KeySign:        name,
		CheckTicket:    verified.Validation,
	})
	return err
}

// PolicyOr accepts a session that reached one of the branches.
func (c *Conn) PolicyOr(s *Session, branches []Digest) error {
	var list tpm2.TPMLDigest
	for _, b := range branches {
		list.Digests = append(list.Digests, tpm2.TPM2BDigest{Buffer: b[:]})
	}
	_, err := run(c, "TPM2_PolicyOR", tpm2.PolicyOr{PolicySession: s.handle, PHashList: list})
	return err
}

// PolicyAuthorizeNV accepts a session that reached the policy which an NV index
// holds.
func (c *Conn) PolicyAuthorizeNV(s *Session, nv *Resource) error {
	_, err := run(c, "TPM2_PolicyAuthorizeNV", tpm2.PolicyAuthorizeNV{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:       tpm2.NamedHandle{Handle: nv.Handle, Name: tpm2.TPM2BName{Buffer: nv.Name}},
		PolicySession: s.handle,
	})
	return err
}
