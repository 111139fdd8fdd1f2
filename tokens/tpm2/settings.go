package tpm2

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// signedByDefault is --tpm2-public-key-pcrs= when it is not given: PCR 11.
const signedByDefault = chip.PCRSet(1 << 11)

// settings are the checked options of one enrolment, with the files they name.
type settings struct {
	req        *tokens.EnrollRequest
	compat     int
	pcrs       chip.Selection // with the latch
	pin        PINMode        // PINNone, PINDirect or PINArgon2id
	argon      Argon2idCost
	handle     tpm2.TPMHandle // of the parent; 0: the SRK
	offline    *chip.Parent
	key        *policy.SigningKey // nil: no signed policy
	signedPCRs chip.PCRSet
	ref        *string
	signatures *policy.Signatures
	pcrlock    *policy.PCRLock
	notes      []note
}

// settings checks options against each other and the wanted systemd, and reads
// the files they name. Errors are ErrUsage.
func (h *Handler) settings(req *tokens.EnrollRequest) (*settings, error) {
	s := &settings{req: req, compat: req.Compat, pcrs: h.pcrs(), handle: h.ParentHandle}
	if s.compat == 0 {
		s.compat = newestSystemd
	}
	for _, check := range []func(*Handler, *settings) error{
		(*Handler).setLatch, (*Handler).setPIN, (*Handler).setParent, (*Handler).setSigned, (*Handler).setPCRLock, (*Handler).setBank,
	} {
		if err := check(h, s); err != nil {
			return nil, err
		}
	}
	if err := s.refuseLate(h); err != nil {
		return nil, err
	}
	s.warn()
	return s, nil
}

// needs refuses what the wanted systemd does not know.
func (s *settings) needs(since int, what string) error {
	if s.compat < since {
		return &tokens.NeedsSystemdError{What: what, Since: since, Compat: s.compat}
	}
	return nil
}

func (h *Handler) setLatch(s *settings) error {
	if !h.Latch {
		return nil
	}
	if s.pcrs.Set.Has(policy.LatchPCR) {
		return tokens.Usagef("--tpm2-latch binds to PCR %d, which --tpm2-pcrs= names too", policy.LatchPCR)
	}
	return s.addLatch()
}

// addLatch binds to PCR 15 = 0.
func (s *settings) addLatch() error {
	zero := chip.Selection{Set: chip.PCRSetOf(policy.LatchPCR), Bank: s.pcrs.Bank, Values: chip.PCRValues{policy.LatchPCR: nil}} // its length follows the bank
	if err := s.pcrs.Merge(zero); err != nil {
		return tokens.Usagef("%w", err)
	}
	return nil
}

func (h *Handler) setPIN(s *settings) error {
	s.pin = h.WithPIN
	if s.pin == PINNo {
		s.pin = PINNone
	}
	if s.pin == PINYes {
		s.pin = PINArgon2id
		if s.compat < sinceArgon2id {
			s.pin = PINDirect
		}
	}
	given := h.argon2idGiven()
	switch {
	case s.pin == PINNone && given:
		return tokens.Usagef("--tpm2-argon2id options need --tpm2-with-pin=")
	case s.pin == PINNone:
		return nil
	case s.pin == PINDirect && given:
		return tokens.Usagef("--tpm2-argon2id options need a PIN that is stretched with Argon2id, and this one is not")
	case s.pin == PINDirect:
		return s.needs(sincePIN, "a PIN")
	}
	if err := s.needs(sinceArgon2id, "stretching the PIN with Argon2id"); err != nil {
		return err
	}
	return s.setArgon(h.Argon2id)
}

func (s *settings) setArgon(cost Argon2idCost) error {
	s.argon = cost
	if s.argon.Memory == 0 {
		s.argon.Memory = defaultArgonMemory
	}
	if s.argon.Iterations == 0 {
		s.argon.Iterations = defaultArgonIterations
	}
	if s.argon.Lanes == 0 {
		s.argon.Lanes = uint64(min(defaultArgonLanes, runtime.NumCPU()))
	}
	if err := errors.Join(s.argon.check(), s.argon.affordable()); err != nil {
		return tokens.Usagef("--tpm2-argon2id options: %w", err)
	}
	return nil
}

func (h *Handler) setParent(s *settings) error {
	if h.DeviceKey == "" {
		if s.handle != 0 {
			return s.needs(sinceOffline, "--tpm2-seal-key-handle=")
		}
		return nil
	}
	if err := s.needs(sinceOffline, "--tpm2-device-key="); err != nil {
		return err
	}
	if h.Device != "" {
		return tokens.Usagef("--tpm2-device= and --tpm2-device-key= exclude each other")
	}
	if missing := s.pcrs.Set &^ s.pcrs.Values.Set(); missing != 0 {
		return tokens.Usagef("--tpm2-device-key= needs a value for every PCR, as in %d:sha256=HEX", missing.List()[0])
	}
	text, err := os.ReadFile(h.DeviceKey)
	if err != nil {
		return tokens.Usagef("reading the storage key: %w", err)
	}
	if s.offline, err = parseDeviceKey(text, s.handle); err != nil {
		return tokens.Usagef("reading the storage key %s: %w", h.DeviceKey, err)
	}
	return nil
}

// parseDeviceKey reads a TPM2B_PUBLIC as tpm2_readpublic -f tss and
// systemd-tpm2-setup write it.
func parseDeviceKey(text []byte, handle tpm2.TPMHandle) (*chip.Parent, error) {
	public, rest, err := chip.Cut2B(text)
	if err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the key", len(rest))
	}
	p, err := chip.NewParent(cmp.Or(handle, chip.HandleSRK), public)
	if err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	return p, nil
}

func (h *Handler) setSigned(s *settings) error {
	if s.compat < sinceSigned && h.PublicKey == nil {
		s.noteUnsigned(h)
		return nil // nothing is picked up that could not be used
	}
	path, text, err := h.findFile(h.PublicKey, publicKeyFile)
	if err != nil {
		return tokens.Usagef("reading the public key: %w", err)
	}
	if text == nil {
		if h.PublicKeyPCRs != nil || h.PublicKeyRef != nil {
			return tokens.Usagef("--tpm2-public-key-pcrs= and --tpm2-public-key-policyref= need a public key")
		}
		s.noteUnsigned(h)
		return nil
	}
	if err := s.needs(sinceSigned, "a signed policy"); err != nil {
		return err
	}
	s.signedPCRs, s.ref = signedByDefault, h.PublicKeyRef
	if h.PublicKeyPCRs != nil {
		s.signedPCRs = *h.PublicKeyPCRs
	}
	if b := h.PublicKeyBank; b != 0 {
		if s.pcrs.Bank != 0 && s.pcrs.Bank != b {
			return tokens.Usagef("PCRs of two banks (%s and %s) cannot be combined in one token", s.pcrs.Bank, b)
		}
		s.pcrs.Bank = b
	}
	if s.signedPCRs == 0 {
		return tokens.Usagef("--tpm2-public-key-pcrs= is empty; --tpm2-public-key= (with nothing) turns signed policies off")
	}
	if s.ref != nil {
		if err := s.needs(sincePolicyRef, "a policy reference"); err != nil {
			return err
		}
	}
	if s.key, err = policy.ParseSigningKey(text); err != nil {
		return tokens.Usagef("the public key %s %w", path, err)
	}
	if s.key.RSA == nil {
		return tokens.Usagef("the public key %s %w", path, policy.ErrECKey)
	}
	if h.PublicKey == nil {
		s.note(noteInfo, "%s", "The signed policy of "+path+" is used because the file is there.")
	}
	return s.setSignature(h)
}

// noteUnsigned says that a signature file was named and nothing is bound to signatures:
// systemd-cryptenroll takes the call.
func (s *settings) noteUnsigned(h *Handler) {
	if h.signatureGiven() {
		s.note(noteOpen, "--tpm2-signature= has no effect without a public key: the keyslot is bound to no signed policy. Add --tpm2-public-key=.")
	}
}

// setSignature reads the signatures, if there are any: only they can prove that
// the new token opens.
func (s *settings) setSignature(h *Handler) error {
	var err error
	if s.signatures, err = h.loadSignatures(); err != nil {
		return tokens.Usagef("%w", err)
	}
	return nil
}

func (h *Handler) setPCRLock(s *settings) error {
	if s.compat < sincePCRLock && h.PCRLock == nil {
		return nil
	}
	var err error
	if s.pcrlock, err = h.loadPCRLock(); err != nil {
		return tokens.Usagef("%w", err)
	}
	if s.pcrlock == nil {
		return nil
	}
	if h.PCRLock == nil {
		s.note(noteInfo, "%s", "The pcrlock policy "+s.pcrlock.Path+" is used because the file is there.")
	}
	switch err := s.needs(sincePCRLock, "a pcrlock policy"); {
	case err != nil:
		return err
	case s.key != nil && s.compat < sinceShards:
		return s.needs(sinceShards, "a signed and a pcrlock policy together")
	case s.key != nil && s.offline != nil:
		return tokens.Usagef("a signed and a pcrlock policy together cannot be sealed with --tpm2-device-key=")
	}
	return nil
}

func (h *Handler) setBank(s *settings) error {
	if s.pcrs.Bank == 0 || s.pcrs.Bank == chip.BankSHA256 {
		return nil
	}
	return s.needs(sinceBank, fmt.Sprintf("bank %s", s.pcrs.Bank))
}

// signatureGiven reports whether a signature file was named on purpose, so that it
// has to fit.
func (h *Handler) signatureGiven() bool { return h.Signature != nil && *h.Signature != "" }

// given are the values that the options name, with the latch's filled in.
func (s *settings) given(b chip.Bank) chip.PCRValues {
	values := chip.PCRValues{}
	for i, value := range s.pcrs.Values {
		if value == nil {
			value = make([]byte, b.Size())
		}
		values[i] = value
	}
	return values
}

// valuesGiven reports whether the options name values of PCRs, the latch aside.
func (s *settings) valuesGiven() bool {
	return s.pcrs.Values.Set()&^chip.PCRSetOf(policy.LatchPCR) != 0
}

// requires is what Description.Requires will say of the token.
func (s *settings) requires() []string {
	t := &token{Conditions: s.conditions()}
	return t.requires()
}

// Plan says what Enroll would make.
func (h *Handler) Plan(req *tokens.EnrollRequest) (string, error) {
	s, err := h.settings(req)
	if err != nil {
		return "", err
	}
	words := append([]string{"TPM2"}, s.requires()...)
	if s.offline != nil {
		words = append(words, "sealed without the TPM")
	}
	return strings.Join(words, ", "), nil
}
