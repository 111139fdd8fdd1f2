package policy

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Reasons why a policy cannot be satisfied now; they become a
// *tokens.PolicyError.
var (
	ErrPCRsDiffer   = errors.New("the PCRs differ from those at enrolment")
	ErrNoSignature  = errors.New("no signature approves the present PCRs")
	ErrNotPredicted = errors.New("the present PCRs are not among those that pcrlock predicted")
)

// Run satisfies the policies of one token in sessions.
type Run struct {
	Conn *chip.Conn
	Want *Conditions
	// Expected are the recorded values of the literal PCRs, if they can be
	// trusted: TPM2_PolicyPCR then fails at once when they are not the present
	// ones.
	Expected   chip.PCRValues
	Signatures *Signatures // may be nil
	NoFile     string      // what is said without Signatures
	PCRLock    *PCRLock    // may be nil
	Exponent   uint32      // of the signing key's name
}

// Satisfy runs the policy commands of one shard in a session.
func (r *Run) Satisfy(s *chip.Session, kind Shard) error {
	var err error
	switch kind {
	case ShardSigned:
		err = r.signed(s)
	case shardPCRLock:
		err = r.predicted(s)
	}
	if err == nil && r.Want.PCRs != 0 {
		err = r.Conn.PolicyPCR(s, chip.BoundPCRs{Bank: r.Want.Bank, Set: r.Want.PCRs, Values: r.Expected})
		if chip.Failed(err, tpm2.TPMRCValue) && r.Expected != nil {
			err = ErrPCRsDiffer
		}
	}
	if err == nil && r.Want.PIN {
		err = r.Conn.PolicyAuthValue(s)
	}
	return err
}

// signed has the TPM accept a signature over the present values of the signed
// PCRs.
func (r *Run) signed(s *chip.Session) error {
	if r.Signatures == nil {
		return fmt.Errorf("%w: %s", ErrNoSignature, r.NoFile)
	}
	candidates := r.Signatures.Candidates(r.Want.Key, r.Want.Bank, r.Want.SignedPCRs, r.Want.Ref)
	if len(candidates) == 0 {
		return fmt.Errorf("%w: %s has none by the key of the token for PCR %s in bank %s", ErrNoSignature, r.Signatures.Path, r.Want.SignedPCRs, r.Want.Bank)
	}
	if err := r.Conn.PolicyPCR(s, chip.BoundPCRs{Bank: r.Want.Bank, Set: r.Want.SignedPCRs}); err != nil {
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
	if chip.Failed(err, tpm2.TPMRCValue) {
		return fmt.Errorf("%w: those in %s are for other values", ErrNoSignature, r.Signatures.Path)
	}
	return err
}

// present picks the signature for the present values.
func (r *Run) present(s *chip.Session, candidates []Signature) (*Signature, error) {
	digest, err := r.Conn.PolicyGetDigest(s)
	if err != nil {
		return nil, err
	}
	for i := range candidates {
		if candidates[i].Policy == digest {
			return &candidates[i], nil
		}
	}
	return nil, fmt.Errorf("%w: the %d that fit the token in %s are for other values", ErrNoSignature, len(candidates), r.Signatures.Path)
}

// authorize has the TPM accept a signature.
func (r *Run) authorize(s *chip.Session, sig *Signature) error {
	return r.Conn.PolicyAuthorize(s, &chip.Approval{
		Public: tpm2.Marshal(r.Want.Key.public(r.Exponent)), Policy: sig.Policy, Ref: RefDigest(sig.Ref), Digest: sig.SignedDigest(), Signature: sig.Sig,
	})
}

// predicted runs the policy of systemd-pcrlock and has the NV index approve it.
func (r *Run) predicted(s *chip.Session) error {
	if r.PCRLock == nil {
		return fmt.Errorf("the pcrlock policy was not found: %w", tokens.ErrPolicy)
	}
	if err := r.PCRLock.Belongs(r.Want); err != nil {
		return fmt.Errorf("%w: %w", tokens.ErrPolicy, err)
	}
	var d chip.Digest
	if single := r.PCRLock.single(); len(single) > 0 {
		if err := r.Conn.PolicyPCR(s, chip.BoundPCRs{Bank: r.PCRLock.Bank, Set: single.Set(), Values: single}); err != nil {
			return notPredicted(err)
		}
		d.PCR(r.PCRLock.Bank, single)
	}
	for _, pcr := range r.PCRLock.several() {
		branches := r.PCRLock.branches(d, pcr)
		if err := r.policyOr(s, pcr, branches); err != nil {
			return notPredicted(err)
		}
		d.Or(branches)
	}
	return r.authorizeNV(s)
}

func notPredicted(err error) error {
	if chip.Failed(err, tpm2.TPMRCValue) {
		return ErrNotPredicted
	}
	return err
}

func (r *Run) policyOr(s *chip.Session, pcr int, branches []chip.Digest) error {
	if err := r.Conn.PolicyPCR(s, chip.BoundPCRs{Bank: r.PCRLock.Bank, Set: chip.PCRSetOf(pcr)}); err != nil {
		return err
	}
	return r.Conn.PolicyOr(s, branches)
}

func (r *Run) authorizeNV(s *chip.Session) error {
	nv := r.PCRLock.NVIndex
	err := r.Conn.PolicyAuthorizeNV(s, nv)
	switch {
	case chip.Failed(err, tpm2.TPMRCHandle, tpm2.TPMRCValue):
		return fmt.Errorf("the TPM has no NV index %#x, which held the pcrlock policy: %w", uint32(nv.Handle), tokens.ErrPolicy)
	case chip.Failed(err, tpm2.TPMRCPolicyFail):
		return fmt.Errorf("NV index %#x holds another policy than %s: %w", uint32(nv.Handle), r.PCRLock.Path, tokens.ErrPolicy)
	case chip.Failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail):
		return chip.OwnerPassword()
	}
	return err
}
