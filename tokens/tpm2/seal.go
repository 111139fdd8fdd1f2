package tpm2

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/eventlog"
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
		object := sealedObject{policy: policy, auth: keys.auth, data: part}
		var blob sealedBlob
		var err error
		if e.c == nil {
			blob, err = sealOffline(e.t.parent, object)
		} else {
			blob, err = e.c.seal(e.t.parent, object)
		}
		part.Wipe()
		if err != nil {
			return err
		}
		e.t.blobs = append(e.t.blobs, blob)
	}
	return nil
}

// sealedObject is what goes into a sealed object. Its secrets are borrowed.
type sealedObject struct {
	policy policyDigest
	auth   secret.Secret // empty: no PIN
	data   secret.Secret
}

// template is the public part before the TPM fills in unique. Without a PIN there
// is nothing to guess, so wrong tries elsewhere must not lock the object: noDA.
// Like systemd, fixedTPM and fixedParent follow the parent.
func (o sealedObject) template(a tpm2.TPMAObject) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgKeyedHash,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: a,
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: o.policy[:]},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}

// sensitive is TPMS_SENSITIVE_CREATE.
func (o sealedObject) sensitive() secret.Secret {
	s := secret.New(4 + o.auth.Len() + o.data.Len())
	append2B(append2B(s.Bytes()[:0], o.auth.Bytes()), o.data.Bytes())
	return s
}

// seal is TPM2_Create with the secret encrypted on its way. The HMAC of the
// session protects policy and attributes too.
func (c *conn) seal(p *parent, o sealedObject) (sealedBlob, error) {
	s, err := c.startSession(p, sessionOptions{kind: tpm2.TPMSEHMAC})
	if err != nil {
		return sealedBlob{}, err
	}
	defer s.close(c)
	s.attributes = attrDecrypt
	s.outgoing = o.sensitive()
	a := p.key.ObjectAttributes
	template := o.template(tpm2.TPMAObject{FixedTPM: a.FixedTPM, FixedParent: a.FixedTPM, NoDA: o.auth.Len() == 0})
	rsp, err := run(c, "TPM2_Create", tpm2.Create{
		ParentHandle: p.auth(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{ // place holders, see session.outgoing
			UserAuth: tpm2.TPM2BAuth{Buffer: make([]byte, o.auth.Len())},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: make([]byte, o.data.Len())}),
		}},
		InPublic: tpm2.New2B(template),
	}, s)
	if err != nil {
		return sealedBlob{}, sealError(p, err)
	}
	c.forget(s.handle)
	s.handle = tpm2.TPMRHNull
	blob := sealedBlob{private: rsp.OutPrivate.Buffer, public: rsp.OutPublic.Bytes()}
	public, err := parsePublic(blob.public)
	if err != nil {
		return sealedBlob{}, fmt.Errorf("TPM2_Create: the public part %w", err)
	}
	if blob.policy() != o.policy || public.ObjectAttributes != template.ObjectAttributes {
		return sealedBlob{}, errors.New("TPM2_Create: the TPM made another object than it was asked for")
	}
	return blob, nil
}

func sealError(p *parent, err error) error {
	if failed(err, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) {
		return fmt.Errorf("the storage key at handle %#x has a password: %w", uint32(p.handle), err)
	}
	return fmt.Errorf("sealing the key: %w", err)
}

// parent returns the storage key to seal under and makes it when the TPM has
// none yet.
func (e *enrollment) parent() (*parent, error) {
	if e.s.compat < sinceSRK {
		return e.o.parentOf(&token{primaryAlg: "ecc"})
	}
	handle := cmp.Or(e.s.handle, handleSRK)
	public, err := e.c.readPublic(handle)
	switch {
	case err == nil:
		p, err := newParent(handle, public)
		if err != nil {
			return nil, fmt.Errorf("the key at handle %#x %w; name another with --tpm2-seal-key-handle=", uint32(handle), err)
		}
		return p, nil
	case !failed(err, tpm2.TPMRCHandle, tpm2.TPMRCReferenceH0):
		return nil, err
	case e.s.handle != 0:
		return nil, usage("the TPM has no key at handle %#x", uint32(e.s.handle))
	}
	return e.c.makeSRK()
}

// noteOtherParent says when tokens of the volume were sealed under another key at
// the same handle: the TPM was cleared or exchanged since.
func (e *enrollment) noteOtherParent(p *parent) {
	for _, raw := range e.s.req.Volume.Tokens {
		if raw.Type != tokenType {
			continue
		}
		if old, err := parseToken(raw.Raw); err == nil && old.parent != nil && old.parent.handle == p.handle && !bytes.Equal(old.parent.public, p.public) {
			e.s.notes = append(e.s.notes, fmt.Sprintf("Token %d was sealed by another TPM, or this one was cleared since; it cannot be opened here.", raw.ID))
		}
	}
}

// makeSRK makes the storage root key as systemd-tpm2-setup does: elliptic curve,
// or RSA where the TPM knows none.
func (c *conn) makeSRK() (*parent, error) {
	p, err := c.primary(storageTemplate("ecc", true))
	if failed(err, tpm2.TPMRCCurve, tpm2.TPMRCValue, tpm2.TPMRCAsymmetric, tpm2.TPMRCType) {
		p, err = c.primary(storageTemplate("rsa", true))
	}
	if err == nil {
		_, err = run(c, "TPM2_EvictControl", tpm2.EvictControl{
			Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			ObjectHandle:     &tpm2.NamedHandle{Handle: p.handle, Name: tpm2.TPM2BName{Buffer: p.name()}},
			PersistentHandle: handleSRK,
		})
		c.flush(p.handle)
	}
	if failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail) {
		return nil, errOwnerPassword
	}
	if err != nil {
		return nil, fmt.Errorf("making the storage root key: %w", err)
	}
	return newParent(handleSRK, p.public)
}

// readPCRs gets the values of the literal PCRs that were not given, and chooses
// the bank if none was named.
func (e *enrollment) readPCRs() error {
	e.values, e.present = pcrValues{}, pcrValues{}
	if e.t.pcrs == 0 {
		return nil
	}
	banks := []bank{bankSHA256, bankSHA1}
	if e.s.compat >= sinceOtherBanks {
		banks = []bank{bankSHA256, bankSHA384, bankSHA512, bankSHA1}
	}
	if e.s.compat < sinceBank {
		banks = banks[:1]
	}
	if e.s.pcrs.bank != 0 {
		banks = []bank{e.s.pcrs.bank}
	}
	if err := e.chooseBank(banks); err != nil {
		return err
	}
	e.values = e.s.given(e.t.bank)
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
func (e *enrollment) chooseBank(banks []bank) error {
	var firstErr error
	for i, b := range banks {
		values, err := e.c.readPCRs(b, e.t.pcrs)
		if e.c.broken != nil {
			return err
		}
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		e.t.bank, e.present = b, values
		if !looksUsed(values) && len(banks) > i+1 {
			return e.preferUsedBank(banks[i:])
		}
		return nil
	}
	return fmt.Errorf("reading the PCRs: %w", firstErr)
}

// preferUsedBank looks at PCR 0, which every firmware extends, in all banks at
// once. It stays with the first bank if that is used, or none is.
func (e *enrollment) preferUsedBank(banks []bank) error {
	used, err := e.c.usedBanks(banks)
	if err != nil || len(used) == 0 || used[0] == banks[0] {
		return err
	}
	values, err := e.c.readPCRs(used[0], e.t.pcrs)
	if err == nil && looksUsed(values) {
		e.t.bank, e.present = used[0], values
	}
	return err
}

// usedBanks are those of the banks, in their order, whose PCR 0 has been extended.
func (c *conn) usedBanks(banks []bank) ([]bank, error) {
	var in tpm2.TPMLPCRSelection
	for _, b := range banks {
		in.PCRSelections = append(in.PCRSelections, pcrSetOf(0).selection(b).PCRSelections...)
	}
	rsp, err := run(c, "TPM2_PCR_Read", tpm2.PCRRead{PCRSelectionIn: in})
	if err != nil {
		return nil, err
	}
	var used []bank
	next := 0 // the digests come in the order of the selection
	for _, b := range banks {
		if selected(rsp.PCRSelectionOut, b) == 0 {
			continue
		}
		if next < len(rsp.PCRValues.Digests) && !unused(rsp.PCRValues.Digests[next].Buffer) {
			used = append(used, b)
		}
		next++
	}
	return used, nil
}

// looksUsed reports whether something was measured into one of the PCRs.
func looksUsed(values pcrValues) bool {
	for _, v := range values {
		if !unused(v) {
			return true
		}
	}
	return false
}

// unused is a value that a PCR has after a reset.
func unused(v []byte) bool {
	return len(bytes.Trim(v, "\x00")) == 0 || len(bytes.Trim(v, "\xff")) == 0
}

func (e *enrollment) noteUnused(pcr int, value []byte) {
	if unused(value) && pcr != latchPCR {
		e.s.notes = append(e.s.notes, fmt.Sprintf("Nothing has been measured into PCR %d (%s) since the machine was started.", pcr, e.t.bank))
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
		e.s.notes = append(e.s.notes, fmt.Sprintf("PCR %d has been extended since the boot (%s), so it will have another value when the volume is unlocked in the next one; "+
			"give the value with --tpm2-pcrs=%d:%s=HEX, or use a signed policy.", pcr, last, pcr, e.t.bank))
	}
}
