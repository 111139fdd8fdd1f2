package tpm2

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
	"luksmith/tokens/tpm2/policy"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, see crypto/rand
	return b
}

// seal makes one sealed object for every part of the secret.
func (e *enrollment) seal(keys pinKeys) error {
	e.t.blobs = nil
	for i, policy := range e.t.policy {
		part := secret.Copy(e.secret.Bytes()[i*sealedSecretSize : (i+1)*sealedSecretSize])
		object := chip.Object{Policy: policy, Auth: keys.auth, Data: part}
		var blob chip.Blob
		var err error
		if e.c == nil {
			blob, err = chip.SealOffline(e.t.Parent, object)
		} else {
			blob, err = e.c.Seal(e.t.Parent, object)
		}
		part.Wipe()
		if err != nil {
			return err
		}
		e.t.blobs = append(e.t.blobs, blob)
	}
	return nil
}

// parent returns the storage key to seal under and makes it when the TPM has
// none yet.
func (e *enrollment) parent() (*chip.Parent, error) {
	if e.s.compat < sinceSRK {
		return e.o.parentOf(&token{primaryAlg: "ecc"})
	}
	handle := cmp.Or(e.s.handle, chip.HandleSRK)
	public, err := e.c.ReadPublic(handle)
	switch {
	case err == nil:
		p, err := chip.NewParent(handle, public)
		if err != nil {
			return nil, fmt.Errorf("the key at handle %#x %w; name another with --tpm2-seal-key-handle=", uint32(handle), err)
		}
		return p, nil
	case !chip.Failed(err, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0):
		return nil, err
	case e.s.handle != 0:
		return nil, usage("the TPM has no key at handle %#x", uint32(e.s.handle))
	}
	return e.c.MakeSRK()
}

// noteOtherParent says when tokens of the volume were sealed under another key at
// the same handle: the TPM was cleared or exchanged since.
func (e *enrollment) noteOtherParent(p *chip.Parent) {
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		if old, err := parseToken(raw.Raw); err == nil && old.Parent != nil && old.Parent.Handle == p.Handle && !bytes.Equal(old.Parent.Public, p.Public) {
			e.s.note(noteInfo, "%s was sealed by another TPM, or this one was cleared since; it cannot be opened here.", sentence(slotText(raw)))
		}
	}
}

// readPCRs gets the values of the literal PCRs that were not given, and chooses
// the bank if none was named.
func (e *enrollment) readPCRs() error {
	e.values, e.present = chip.PCRValues{}, chip.PCRValues{}
	switch {
	case e.t.PCRs == 0 && e.t.SignedPCRs != 0 && e.s.compat >= sinceBank:
		return e.chooseSignedBank()
	case e.t.PCRs == 0:
		return nil
	}
	banks := []chip.Bank{chip.BankSHA256, chip.BankSHA384, chip.BankSHA512, chip.BankSHA1}
	if e.s.compat < sinceBank {
		banks = banks[:1]
	}
	if e.s.pcrs.Bank != 0 {
		banks = []chip.Bank{e.s.pcrs.Bank}
	}
	if err := e.chooseBank(banks); err != nil {
		return err
	}
	e.values = e.s.given(e.t.Bank)
	for i, value := range e.present {
		if e.values[i] == nil {
			e.values[i] = value
			e.noteUnused(i, value)
			e.noteLater(i)
		}
	}
	return nil
}

// chooseBank takes the first bank that the TPM has. If nothing was measured into
// the PCRs in it, a bank that the firmware does measure into is preferred.
func (e *enrollment) chooseBank(banks []chip.Bank) error {
	var firstErr error
	for i, b := range banks {
		values, err := e.c.ReadPCRs(b, e.t.PCRs)
		if e.c.Broken() {
			return err
		}
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		e.t.Bank, e.present = b, values
		if !chip.LooksUsed(values) && len(banks) > i+1 {
			return e.preferUsedBank(banks[i:])
		}
		return nil
	}
	return e.noBank(banks, firstErr)
}

// noBank says which banks there are when none of those that could be used is.
func (e *enrollment) noBank(wanted []chip.Bank, cause error) error {
	has, err := e.c.Banks()
	if err != nil || len(has) == 0 || slices.ContainsFunc(wanted, func(b chip.Bank) bool { return slices.Contains(has, b) }) {
		return fmt.Errorf("reading the PCRs: %w", cause)
	}
	return usage("the TPM keeps no bank %s; it has %s", bankNames(wanted), bankNames(has))
}

func bankNames(list []chip.Bank) string {
	var names []string
	for _, b := range list {
		names = append(names, b.String())
	}
	return strings.Join(names, ", ")
}

// chooseSignedBank takes the bank of PCRs whose values are signed, where no literal
// PCR decides it: the wanted one, else one that there are signatures for, else the
// TPM's first.
func (e *enrollment) chooseSignedBank() error {
	has, err := e.c.Banks()
	if err != nil {
		return err
	}
	if b := e.s.pcrs.Bank; b != 0 {
		if !slices.Contains(has, b) {
			return usage("the TPM keeps no bank %s; it has %s", b, bankNames(has))
		}
		return nil
	}
	if len(has) == 0 {
		return errors.New("the TPM keeps no bank of PCRs")
	}
	e.t.Bank = has[0]
	for _, b := range has {
		if f := e.s.signatures; f != nil && len(f.Candidates(e.t.Key, b, e.t.SignedPCRs, e.t.Ref)) > 0 {
			e.t.Bank = b
			return nil
		}
	}
	return nil
}

// preferUsedBank looks at PCR 0, which every firmware extends, in all banks at
// once. It stays with the first bank if that is used, or none is.
func (e *enrollment) preferUsedBank(banks []chip.Bank) error {
	used, err := e.c.UsedBanks(banks)
	if err != nil || len(used) == 0 || used[0] == banks[0] {
		return err
	}
	values, err := e.c.ReadPCRs(used[0], e.t.PCRs)
	if err == nil && chip.LooksUsed(values) {
		e.t.Bank, e.present = used[0], values
	}
	return err
}

func (e *enrollment) noteUnused(pcr int, value []byte) {
	if chip.Unused(value) && pcr != policy.LatchPCR {
		e.s.note(noteEmpty, "PCR %d (%s) is empty on this machine: it protects nothing.", pcr, e.t.Bank)
	}
}

// noteLater says when user space has measured into a PCR: at unlock, in the next
// boot, some of that has not happened yet. The phase that systemd measures before
// it unlocks is the exception.
func (e *enrollment) noteLater(pcr int) {
	var last string
	for _, ev := range eventlog.Of(e.events, pcr) {
		if ev.Type == 0 && ev.Text != "phase enter-initrd" {
			last = ev.String()
		}
	}
	if last != "" {
		e.s.note(noteUnproven, "PCR %d has been extended since the boot (%s), so it will have another value when the volume is unlocked in the next one; "+
			"give the value with --tpm2-pcrs=%d:%s=HEX, or use a signed policy.", pcr, last, pcr, e.t.Bank)
	}
}
