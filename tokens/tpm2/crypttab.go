package tpm2

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"

	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// crypttab are the options of the volume's line.
func (e *enrollment) crypttab() []string {
	h, s := e.h, e.s
	device := h.Device
	if !filepath.IsAbs(device) && !strings.HasPrefix(device, "swtpm") || strings.Contains(device, ",") {
		device = "auto"
	}
	list := []string{"tpm2-device=" + device}
	if h.signatureGiven() && s.key != nil {
		list = append(list, "tpm2-signature="+*h.Signature)
	}
	if h.PCRLock != nil && s.pcrlock != nil {
		list = append(list, "tpm2-pcrlock="+*h.PCRLock)
	}
	if s.pcrs.Set.Has(policy.LatchPCR) {
		list = append(list, "tpm2-measure-pcr=yes")
	}
	if s.pin == PINNone {
		return list
	}
	if names := e.storageKeys(); names != nil {
		list = append(list, "luksmith-tpm2-srk="+strings.Join(names, string(nameSeparator)))
	}
	return list
}

// nameSeparator stands between the names of luksmith-tpm2-srk=.
const nameSeparator = ':'

// storageKeys are the names, in hexadecimal, of the storage keys of this TPM that may be
// given a PIN of the volume: that of the new token and those of tokens that stay, whose PIN
// nobody would be asked for else. All are read from the TPM: what a header says, anybody
// can have written.
func (e *enrollment) storageKeys() (names []string) {
	add := func(p *chip.Parent, err error) {
		if err != nil || p == nil {
			return // it is the key of another TPM, or of none
		}
		if name := hex.EncodeToString(p.Name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(e.newParent(), nil)
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType || e.c == nil {
			continue
		}
		if t, err := parseToken(raw.Raw); err == nil && t.PIN {
			add(e.presentParent(t))
		}
	}
	return names
}

// newParent is the key that the new token is sealed under, nil if none is made.
func (e *enrollment) newParent() *chip.Parent {
	if e.t == nil {
		return nil
	}
	return e.t.Parent
}

// presentParent is the key that this TPM has where a token says, if that is the storage
// root key: whoever edited the token may have left a key of his own at another handle.
func (e *enrollment) presentParent(t *token) (*chip.Parent, error) {
	switch known := e.newParent(); {
	case t.Parent == nil:
		return e.o.parentOf(t)
	case known != nil && known.Handle == t.Parent.Handle:
		return known, nil
	case t.Parent.Handle != chip.HandleSRK:
		return nil, nil
	}
	public, err := e.c.ReadPublic(t.Parent.Handle)
	if err != nil {
		return nil, err
	}
	return chip.NewParent(t.Parent.Handle, public)
}
