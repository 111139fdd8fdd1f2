package tpm2

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Sizes of RSA keys that TPMs can check signatures with.
const (
	minRSABits = 1024
	maxRSABits = 4096
	maxPEM     = 16 << 10
)

// signingKey is the public key of a signed PCR policy.
type signingKey struct {
	pem []byte // as in the token and the file
	// rsa is nil for elliptic-curve keys: systemd 255 to 262 enrols them but can
	// check no signature made with one, so nobody has ever opened such a token.
	rsa *rsa.PublicKey
	// fingerprint is the pkfp of signature files: SHA-256 of the PKCS#1 form, not
	// of SubjectPublicKeyInfo.
	fingerprint [sha256.Size]byte
}

// errECKey is why a key cannot be used for a signed policy.
var errECKey = errors.New("is an elliptic-curve key, but signed policies work with RSA only")

// parseSigningKey reads the first PEM block.
func parseSigningKey(text []byte) (*signingKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("has %d bytes", len(text))
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is no PEM text")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("is a PEM text of type %.30q, want a public key", block.Type)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("is no public key in X.509 form")
	}
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits || n%8 != 0 {
			return nil, fmt.Errorf("is an RSA key of %d bits", n)
		}
		return &signingKey{pem: text, rsa: key, fingerprint: sha256.Sum256(x509.MarshalPKCS1PublicKey(key))}, nil
	case *ecdsa.PublicKey:
		return &signingKey{pem: text}, nil
	}
	return nil, errors.New("is not an RSA key")
}

// public is the key as LoadExternal takes it. systemd 255.0 to 255.2 left the
// exponent to the TPM's default, which gives the key another name: exponent is
// 65537 or 0.
func (k *signingKey) public(exponent uint32) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgRSA,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, Decrypt: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: tpm2.TPMIRSAKeyBits(k.rsa.N.BitLen()), Exponent: exponent,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.rsa.N.Bytes()}),
	}
}

// name is the name of the key in policies.
func (k *signingKey) name(exponent uint32) []byte {
	return objectName(tpm2.Marshal(k.public(exponent)))
}
