package tpm2

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
)

// Reasons why a policy cannot be satisfied now; they become a
// *tokens.PolicyError.
var (
	errPCRsDiffer   = errors.New("the PCRs differ from those at enrolment")
	errNoSignature  = errors.New("no signature approves the present PCRs")
	errNotPredicted = errors.New("the present PCRs are not among those that pcrlock predicted")
)

// policyRun satisfies the policies of one token in sessions.
type policyRun struct {
	c *conn
	t *token
	// expected are the recorded values of the literal PCRs, if they can be
	// trusted: TPM2_PolicyPCR then fails at once when they are not the present
	// ones.
	expected   pcrValues
	signatures *signatures    // may be nil
	pcrlock    *pcrlockPolicy // may be nil
	exponent   uint32         // of the signing key's name
}

// satisfy runs the policy commands of one shard in a session.
func (r *policyRun) satisfy(s *session, kind shardKind) error {
	var err error
	switch kind {
	case shardSigned:
		err = r.signed(s)
	case shardPCRLock:
		err = r.predicted(s)
	}
	if err == nil && r.t.pcrs != 0 {
		err = r.policyPCR(s, r.t.bank, r.t.pcrs, r.expected)
		if failed(err, tpm2.TPMRCValue) && r.expected != nil {
			err = errPCRsDiffer
		}
	}
	if err == nil && r.t.pin {
		_, err = run(r.c, "TPM2_PolicyAuthValue", tpm2.PolicyAuthValue{PolicySession: s.handle})
	}
	return err
}

// policyPCR binds the session to the present values, which must be the given ones
// unless those are nil.
func (r *policyRun) policyPCR(s *session, b bank, set pcrSet, values pcrValues) error {
	cmd := tpm2.PolicyPCR{PolicySession: s.handle, Pcrs: set.selection(b)}
	if values != nil {
		cmd.PcrDigest = tpm2.TPM2BDigest{Buffer: values.digest()}
	}
	_, err := run(r.c, "TPM2_PolicyPCR", cmd)
	return err
}

// signed has the TPM accept a signature over the present values of the signed
// PCRs.
func (r *policyRun) signed(s *session) error {
	if r.signatures == nil {
		return fmt.Errorf("%w: no signature file was found", errNoSignature)
	}
	candidates := r.signatures.candidates(r.t.pubkey, r.t.bank, r.t.signedPCRs, r.t.policyRef)
	if len(candidates) == 0 {
		return fmt.Errorf("%w: %s has none by the key of the token for PCR %s in bank %s", errNoSignature, r.signatures.path, r.t.signedPCRs, r.t.bank)
	}
	if err := r.policyPCR(s, r.t.bank, r.t.signedPCRs, nil); err != nil {
		return err
	}
	chosen := &candidates[0]
	if len(candidates) > 1 {
		var err error
		if chosen, err = r.present(s, candidates); err != nil {
			return err
		}
	}
	err := r.authorize(s, chosen)
	if failed(err, tpm2.TPMRCValue) {
		return fmt.Errorf("%w: those in %s are for other values", errNoSignature, r.signatures.path)
	}
	return err
}

// present picks the signature for the present values.
func (r *policyRun) present(s *session, candidates []signature) (*signature, error) {
	rsp, err := run(r.c, "TPM2_PolicyGetDigest", tpm2.PolicyGetDigest{PolicySession: s.handle})
	if err != nil {
		return nil, err
	}
	for i := range candidates {
		if bytes.Equal(candidates[i].policy[:], rsp.PolicyDigest.Buffer) {
			return &candidates[i], nil
		}
	}
	return nil, fmt.Errorf("%w: the %d that fit the token in %s are for other values", errNoSignature, len(candidates), r.signatures.path)
}

// authorize shows the signature to the TPM, which checks it with the public key
// and turns it into a ticket for PolicyAuthorize.
func (r *policyRun) authorize(s *session, sig *signature) error {
	public := tpm2.Marshal(r.t.pubkey.public(r.exponent))
	key, err := run(r.c, "TPM2_LoadExternal", tpm2.LoadExternal{InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](public), Hierarchy: tpm2.TPMRHOwner})
	if err != nil {
		return err
	}
	name := tpm2.TPM2BName{Buffer: objectName(public)}
	verified, err := run(r.c, "TPM2_VerifySignature", tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: name},
		Digest:    tpm2.TPM2BDigest{Buffer: sig.signedDigest()},
		Signature: tpm2.TPMTSignature{
			SigAlg: tpm2.TPMAlgRSASSA,
			Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{
				Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: sig.sig},
			}),
		},
	})
	r.c.flush(key.ObjectHandle)
	if err != nil {
		return err
	}
	_, err = run(r.c, "TPM2_PolicyAuthorize", tpm2.PolicyAuthorize{
		PolicySession:  s.handle,
		ApprovedPolicy: tpm2.TPM2BDigest{Buffer: sig.policy[:]},
		PolicyRef:      tpm2.TPM2BDigest{Buffer: policyRef(sig.ref)},
		KeySign:        name,
		CheckTicket:    verified.Validation,
	})
	return err
}

// predicted runs the policy of systemd-pcrlock and has the NV index approve it.
func (r *policyRun) predicted(s *session) error {
	if r.pcrlock == nil {
		return fmt.Errorf("the pcrlock policy was not found: %w", tokens.ErrPolicy)
	}
	if err := r.pcrlock.belongs(r.t); err != nil {
		return fmt.Errorf("%w: %w", tokens.ErrPolicy, err)
	}
	var d policyDigest
	if single := r.pcrlock.single(); len(single) > 0 {
		if err := r.policyPCR(s, r.pcrlock.bank, single.set(), single); err != nil {
			return notPredicted(err)
		}
		d.pcr(r.pcrlock.bank, single)
	}
	for _, pcr := range r.pcrlock.several() {
		branches := r.pcrlock.branches(d, pcr)
		if err := r.policyOr(s, pcr, branches); err != nil {
			return notPredicted(err)
		}
		d.or(branches)
	}
	return r.authorizeNV(s)
}

func notPredicted(err error) error {
	if failed(err, tpm2.TPMRCValue) {
		return errNotPredicted
	}
	return err
}

func (r *policyRun) policyOr(s *session, pcr int, branches []policyDigest) error {
	if err := r.policyPCR(s, r.pcrlock.bank, pcrSetOf(pcr), nil); err != nil {
		return err
	}
	var list tpm2.TPMLDigest
	for _, b := range branches {
		list.Digests = append(list.Digests, tpm2.TPM2BDigest{Buffer: b[:]})
	}
	_, err := run(r.c, "TPM2_PolicyOR", tpm2.PolicyOr{PolicySession: s.handle, PHashList: list})
	return err
}

func (r *policyRun) authorizeNV(s *session) error {
	nv := r.pcrlock.nvIndex
	_, err := run(r.c, "TPM2_PolicyAuthorizeNV", tpm2.PolicyAuthorizeNV{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:       tpm2.NamedHandle{Handle: nv.handle, Name: tpm2.TPM2BName{Buffer: nv.name}},
		PolicySession: s.handle,
	})
	switch {
	case failed(err, tpm2.TPMRCHandle, tpm2.TPMRCValue):
		return fmt.Errorf("the TPM has no NV index %#x, which held the pcrlock policy: %w", uint32(nv.handle), tokens.ErrPolicy)
	case failed(err, tpm2.TPMRCPolicyFail):
		return fmt.Errorf("NV index %#x holds another policy than %s: %w", uint32(nv.handle), r.pcrlock.path, tokens.ErrPolicy)
	case failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail):
		return errOwnerPassword
	}
	return err
}

// errOwnerPassword: the owner hierarchy has an authorization value.
var errOwnerPassword = tokens.WithHint(errors.New("the owner hierarchy of the TPM has a password"),
	"remove it with tpm2_changeauth -c owner -p PASSWORD, or use a persistent key with --tpm2-seal-key-handle=")
