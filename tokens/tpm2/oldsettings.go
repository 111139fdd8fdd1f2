package tpm2

import (
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// settingsOf are the options that a token was made with.
func (h *Handler) settingsOf(old *token, req *ResealRequest) (*settings, error) {
	label := req.Label
	if label == "" {
		label = string(old.extra.Label)
	}
	s := &settings{
		req:    &tokens.EnrollRequest{Volume: req.Volume, Label: label, Compat: req.Compat},
		compat: req.Compat, pcrs: old.selection(), signedPCRs: old.SignedPCRs, ref: old.Ref,
	}
	if s.compat == 0 {
		s.compat = newestSystemd
	}
	if pcrs := h.pcrs(); pcrs.Set != 0 {
		s.pcrs = pcrs
		if old.Latched() && !s.pcrs.Set.Has(policy.LatchPCR) {
			if err := s.addLatch(); err != nil {
				return nil, err
			}
		}
	}
	if old.SignedPCRs != 0 {
		s.key = old.Key
	}
	if old.PIN {
		s.pin = PINDirect
	}
	if old.PIN && old.argon != nil {
		s.pin, s.argon = PINArgon2id, *old.argon
	}
	if old.otherParent() {
		s.handle = old.Parent.Handle
	}
	var err error
	if s.signatures, err = h.loadSignatures(); err != nil {
		return nil, tokens.Usagef("%w", err)
	}
	if old.PCRLock {
		if s.pcrlock, err = h.loadPCRLock(); err != nil {
			return nil, tokens.Usagef("%w", err)
		}
		if s.pcrlock == nil {
			return nil, tokens.Usagef("the token has a pcrlock policy, and no policy file was found")
		}
	}
	return s, s.readableBy(old)
}

// readableBy refuses to make what the wanted systemd would not read.
func (s *settings) readableBy(old *token) error {
	for _, p := range old.properties() {
		if p.kept {
			if err := s.needs(p.since, p.what); err != nil {
				return err
			}
		}
	}
	return nil
}

// selection is --tpm2-pcrs= for the same PCRs with their present values. The
// latch keeps its value: by the time of a reseal the volume key has been measured.
func (t *token) selection() chip.Selection {
	s := chip.Selection{Set: t.PCRs, Bank: t.Bank, Values: chip.PCRValues{}}
	if t.PCRs == 0 {
		s.Bank = 0
	}
	if t.Latched() {
		s.Values[policy.LatchPCR] = nil // zero, see settings.given
		if recorded := t.recorded(); recorded != nil {
			s.Values[policy.LatchPCR] = recorded[policy.LatchPCR]
		}
	}
	return s
}
