package chip

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Parent is the storage key under which objects are sealed and to which sessions
// are salted.
type Parent struct {
	Handle tpm2.TPMHandle
	Public []byte // TPMT_PUBLIC
	Name   []byte // by which the TPM knows the key
	key    *tpm2.TPMTPublic
	// encapsulation is the key in a form that secrets can be encrypted to.
	encapsulation tpm2.LabeledEncapsulationKey
}

// NewParent checks that public is a key under which an object can be sealed and
// to which a session can be salted (TPM 2.0 Part 1 §27.2: restricted decryption
// key).
func NewParent(handle tpm2.TPMHandle, public []byte) (*Parent, error) {
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
	encapsulation, err := encapsulationKey(key)
	if err != nil {
		return nil, err
	}
	return &Parent{Handle: handle, Public: public, Name: ObjectName(public), key: key, encapsulation: encapsulation}, nil
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

// Algorithm is the tpm2-primary-alg of the key.
func (p *Parent) Algorithm() string {
	if p.key.Type == tpm2.TPMAlgRSA {
		return "rsa"
	}
	return "ecc"
}

// Resource is the parent as tpm2_srk holds it.
func (p *Parent) Resource() *Resource {
	return &Resource{Handle: p.Handle, Name: p.Name, Public: p.Public}
}

// auth is the parent as commands take it. Storage keys made by systemd and by us
// have no password.
func (p *Parent) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: p.Handle, Name: tpm2.TPM2BName{Buffer: p.Name}, Auth: tpm2.PasswordAuth(nil)}
}

// StorageTemplate is what CreatePrimary makes a storage key from. The SRK (TCG EK
// Credential Profile templates L-1 and L-2) and the key that systemd 248 to 253
// made on every use differ only in noDA, and are different keys for it.
func StorageTemplate(algorithm string, noDA bool) tpm2.TPMTPublic {
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

// Primary makes a transient storage key of the owner hierarchy. The caller
// flushes its handle.
func (c *Conn) Primary(template tpm2.TPMTPublic) (*Parent, error) {
	rsp, err := run(c, "TPM2_CreatePrimary", tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	})
	if err != nil {
		return nil, err
	}
	return NewParent(rsp.ObjectHandle, rsp.OutPublic.Bytes())
}

// ReadPublic returns the key at a handle.
func (c *Conn) ReadPublic(handle tpm2.TPMHandle) ([]byte, error) {
	rsp, err := run(c, "TPM2_ReadPublic", tpm2.ReadPublic{ObjectHandle: handle})
	if err != nil {
		return nil, err
	}
	return rsp.OutPublic.Bytes(), nil
}

// MakeSRK makes the storage root key as systemd-tpm2-setup does: elliptic curve,
// or RSA where the TPM knows none.
func (c *Conn) MakeSRK() (*Parent, error) {
	p, err := c.Primary(StorageTemplate("ecc", true))
	if Failed(err, tpm2.TPMRCCurve, tpm2.TPMRCValue, tpm2.TPMRCAsymmetric, tpm2.TPMRCType) {
		p, err = c.Primary(StorageTemplate("rsa", true))
	}
	if err == nil {
		_, err = run(c, "TPM2_EvictControl", tpm2.EvictControl{
			Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			ObjectHandle:     &tpm2.NamedHandle{Handle: p.Handle, Name: tpm2.TPM2BName{Buffer: p.Name}},
			PersistentHandle: HandleSRK,
		})
		c.Flush(p.Handle)
	}
	if Failed(err, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail) {
		return nil, OwnerPassword()
	}
	if err != nil {
		return nil, fmt.Errorf("making the storage root key: %w", err)
	}
	return NewParent(HandleSRK, p.Public)
}
