package chip

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2/secret"
)

// Load loads a sealed object and checks that the TPM names it as we do. The
// caller flushes it.
func (c *Conn) Load(p *Parent, private, public []byte) (tpm2.NamedHandle, error) {
	rsp, err := run(c, "TPM2_Load", tpm2.Load{
		ParentHandle: p.auth(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](public),
	})
	if err != nil {
		return tpm2.NamedHandle{}, err
	}
	name := ObjectName(public)
	if !bytes.Equal(rsp.Name.Buffer, name) {
		return tpm2.NamedHandle{}, errors.New("the TPM loaded another object than it was given")
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: tpm2.TPM2BName{Buffer: name}}, nil
}

// ImportObject takes an object that was sealed without the TPM and returns its
// private part in the form that load takes.
func (c *Conn) ImportObject(p *Parent, b Blob) ([]byte, error) {
	rsp, err := run(c, "TPM2_Import", tpm2.Import{
		ParentHandle: p.auth(),
		ObjectPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](b.Public),
		Duplicate:    tpm2.TPM2BPrivate{Buffer: b.Private},
		InSymSeed:    tpm2.TPM2BEncryptedSecret{Buffer: b.Seed},
	})
	if err != nil {
		return nil, err
	}
	return rsp.OutPrivate.Buffer, nil
}

// CheckAuth proves that auth is the auth value of an object without using the
// object, so that its policy does not matter: a session bound to it gives right
// HMACs only then (TPM 2.0 Part 1 §19.6.10). A wrong value counts as one try.
func (c *Conn) CheckAuth(p *Parent, object tpm2.NamedHandle, auth secret.Secret) error {
	s, err := c.startSession(p, sessionOptions{kind: tpm2.TPMSEHMAC, bind: object, auth: auth})
	if err != nil {
		return err
	}
	defer s.Close(c)
	s.attributes = attrEncrypt
	if _, err := run(c, "TPM2_GetRandom", tpm2.GetRandom{BytesRequested: 8}, s); err != nil {
		return err
	}
	c.forget(s.handle)
	s.handle = tpm2.TPMRHNull
	return nil
}

// Object is what goes into a sealed object. Its secrets are borrowed.
type Object struct {
	Policy Digest
	Auth   secret.Secret // empty: no PIN
	Data   secret.Secret
}

// template is the public part before the TPM fills in unique. Without a PIN there
// is nothing to guess, so wrong tries elsewhere must not lock the object: noDA.
// Like systemd, fixedTPM and fixedParent follow the parent.
func (o Object) template(a tpm2.TPMAObject) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgKeyedHash,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: a,
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: o.Policy[:]},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}

// sensitive is TPMS_SENSITIVE_CREATE.
func (o Object) sensitive() secret.Secret {
	s := secret.New(4 + o.Auth.Len() + o.Data.Len())
	append2B(append2B(s.Bytes()[:0], o.Auth.Bytes()), o.Data.Bytes())
	return s
}

// Seal is TPM2_Create with the secret encrypted on its way. The HMAC of the
// session protects policy and attributes too.
func (c *Conn) Seal(p *Parent, o Object) (Blob, error) {
	s, err := c.startSession(p, sessionOptions{kind: tpm2.TPMSEHMAC})
	if err != nil {
		return Blob{}, err
	}
	defer s.Close(c)
	s.attributes = attrDecrypt
	s.outgoing = o.sensitive()
	a := p.key.ObjectAttributes
	template := o.template(tpm2.TPMAObject{FixedTPM: a.FixedTPM, FixedParent: a.FixedTPM, NoDA: o.Auth.Len() == 0})
	rsp, err := run(c, "TPM2_Create", tpm2.Create{
		ParentHandle: p.auth(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{ // place holders, see session.outgoing
			UserAuth: tpm2.TPM2BAuth{Buffer: make([]byte, o.Auth.Len())},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: make([]byte, o.Data.Len())}),
		}},
		InPublic: tpm2.New2B(template),
	}, s)
	if err != nil {
		return Blob{}, sealError(p, err)
	}
	c.forget(s.handle)
	s.handle = tpm2.TPMRHNull
	blob := Blob{Private: rsp.OutPrivate.Buffer, Public: rsp.OutPublic.Bytes()}
	public, err := parsePublic(blob.Public)
	if err != nil {
		return Blob{}, fmt.Errorf("TPM2_Create: the public part %w", err)
	}
	if blob.Policy() != o.Policy || public.ObjectAttributes != template.ObjectAttributes {
		return Blob{}, errors.New("TPM2_Create: the TPM made another object than it was asked for")
	}
	return blob, nil
}

func sealError(p *Parent, err error) error {
	if Failed(err, tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth) {
		return fmt.Errorf("the storage key at handle %#x has a password: %w", uint32(p.Handle), err)
	}
	return fmt.Errorf("sealing the key: %w", err)
}

// Unseal is TPM2_Unseal with the response encrypted. The TPM ends the session
// when it succeeds; after a refused PIN it can be used again.
func (c *Conn) Unseal(object tpm2.NamedHandle, s *Session, auth secret.Secret) (secret.Secret, error) {
	s.attributes = attrEncrypt
	s.auth = auth
	defer func() { s.auth = secret.Secret{} }()
	_, err := run(c, "TPM2_Unseal", tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.Handle, Name: object.Name, Auth: s}})
	if err != nil {
		return secret.Secret{}, err
	}
	c.forget(s.handle)
	s.handle = tpm2.TPMRHNull
	if s.incoming.Len() == 0 {
		return secret.Secret{}, errors.New("TPM2_Unseal: the response is malformed")
	}
	unsealed := s.incoming
	s.incoming = secret.Secret{}
	return unsealed, nil
}

// AuthValue is what an object is authorised with for a PIN, or for what it was stretched
// to: SHA-256 without trailing zeros. The caller wipes it.
func AuthValue(pin []byte) secret.Secret {
	sum := sha256.Sum256(pin)
	defer secret.Wipe(sum[:])
	return secret.Copy(bytes.TrimRight(sum[:], "\x00"))
}
