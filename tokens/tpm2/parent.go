package tpm2

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// parent is the storage key under which objects are sealed and to which sessions
// are salted.
type parent struct {
	handle tpm2.TPMHandle
	public []byte // TPMT_PUBLIC
	key    *tpm2.TPMTPublic
}

// newParent checks that public is a key under which an object can be sealed and
// to which a session can be salted (TPM 2.0 Part 1 §27.2: restricted decryption
// key).
func newParent(handle tpm2.TPMHandle, public []byte) (*parent, error) {
	key, err := parsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("the public part %w", err)
	}
	a := key.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt {
		return nil, errors.New("is not a storage key")
	}
	if key.NameAlg != tpm2.TPMAlgSHA256 {
		return nil, fmt.Errorf("has the name hash %#x, want SHA-256", uint16(key.NameAlg))
	}
	if _, err := encapsulationKey(key); err != nil {
		return nil, err
	}
	return &parent{handle: handle, public: public, key: key}, nil
}

// encapsulationKey is the public key in a form that secrets can be encrypted to.
// It checks that an ECC point lies on its curve.
func encapsulationKey(key *tpm2.TPMTPublic) (k tpm2.LabeledEncapsulationKey, err error) {
	defer recoverInto(&err)
	if k, err = tpm2.ImportEncapsulationKey(key); err != nil {
		return nil, errors.New("has a public key that cannot be used")
	}
	return k, nil
}

func (p *parent) name() []byte { return objectName(p.public) }

// algorithm is the tpm2-primary-alg of the key.
func (p *parent) algorithm() string {
	if p.key.Type == tpm2.TPMAlgRSA {
		return "rsa"
	}
	return "ecc"
}

// resource is the parent as tpm2_srk holds it.
func (p *parent) resource() *resource {
	return &resource{handle: p.handle, name: p.name(), public: p.public}
}

// auth is the parent as commands take it. Storage keys made by systemd and by us
// have no password.
func (p *parent) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: p.handle, Name: tpm2.TPM2BName{Buffer: p.name()}, Auth: tpm2.PasswordAuth(nil)}
}

// storageTemplate is what CreatePrimary makes a storage key from. The SRK (TCG EK
// Credential Profile templates L-1 and L-2) and the key that systemd 248 to 253
// made on every use differ only in noDA, and are different keys for it.
func storageTemplate(algorithm string, noDA bool) tpm2.TPMTPublic {
	t := tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: noDA, Restricted: true, Decrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aes128CFB(), CurveID: tpm2.TPMECCNistP256}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
	if algorithm == "rsa" {
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aes128CFB(), KeyBits: 2048})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	}
	return t
}

func aes128CFB() tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}
