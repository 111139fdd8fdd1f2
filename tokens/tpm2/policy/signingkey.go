package policy

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"luksmith/tokens/tpm2/chip"
)

// Sizes of RSA keys that TPMs can check signatures with.
const (
	minRSABits = 1024
	maxRSABits = 4096
	maxPEM     = 16 << 10
)

// SigningKey is the public key of a signed PCR policy.
type SigningKey struct {
	PEM []byte // as in the token and the file
	// RSA is nil for elliptic-curve keys: systemd 255 to 262 enrols them but can
	// check no signature made with one, so nobody has ever opened such a token.
	RSA *rsa.PublicKey
	// Fingerprint is the pkfp of signature files: SHA-256 of the PKCS#1 form, not
	// of SubjectPublicKeyInfo.
	Fingerprint [sha256.Size]byte
}

// ErrECKey is why a key cannot be used for a signed policy.
var ErrECKey = errors.New("is an elliptic-curve key, but signed policies work with RSA only")

// ParseSigningKey reads the first PEM block.
func ParseSigningKey(text []byte) (*SigningKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("has %d bytes", len(text))
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is not a PEM text")
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("is a PEM text of type %.30q, want a public key", block.Type)
	}
	rsaKey, pkcs1, err := parsePublicKey(block.Bytes)
	if err != nil || rsaKey == nil {
		return &SigningKey{PEM: text}, err
	}
	if n := rsaKey.N.BitLen(); n < minRSABits || n > maxRSABits || n%8 != 0 || rsaKey.N.Sign() < 0 {
		return nil, fmt.Errorf("is an RSA key of %d bits", n)
	}
	return &SigningKey{PEM: text, RSA: rsaKey, Fingerprint: sha256.Sum256(pkcs1)}, nil
}

// Object identifiers of public keys (RFC 3279 §2.3).
var (
	oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
)

// parsePublicKey reads an RSA key in a SubjectPublicKeyInfo (RFC 5280 §4.1) and
// returns its RSAPublicKey (RFC 8017 §A.1.1) too. It returns nil for an
// elliptic-curve key. crypto/x509 would read it as well, but brings a tenth of a
// megabyte of certificates along.
func parsePublicKey(der []byte) (key *rsa.PublicKey, pkcs1 []byte, err error) {
	input, info, algorithm := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil)
	var oid asn1.ObjectIdentifier
	if !input.ReadASN1(&info, cryptobyteasn1.SEQUENCE) || !input.Empty() ||
		!info.ReadASN1(&algorithm, cryptobyteasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) ||
		!info.ReadASN1BitStringAsBytes(&pkcs1) || !info.Empty() {
		return nil, nil, errors.New("is not a public key in X.509 form")
	}
	if oid.Equal(oidEC) {
		return nil, nil, nil
	}
	if !oid.Equal(oidRSA) {
		return nil, nil, errors.New("is not an RSA key")
	}
	var numbers cryptobyte.String
	key = &rsa.PublicKey{N: new(big.Int)}
	outer := cryptobyte.String(pkcs1)
	if !outer.ReadASN1(&numbers, cryptobyteasn1.SEQUENCE) || !outer.Empty() ||
		!numbers.ReadASN1Integer(key.N) || !numbers.ReadASN1Integer(&key.E) || !numbers.Empty() ||
		key.E < 3 || key.E > math.MaxInt32 {
		return nil, nil, errors.New("is a malformed RSA key")
	}
	return key, pkcs1, nil
}

// public is the key as LoadExternal takes it. systemd 255.0 to 255.2 left the
// exponent to the TPM's default, which gives the key another name: exponent is
// 65537 or 0.
func (k *SigningKey) public(exponent uint32) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgRSA,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, Decrypt: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: tpm2.TPMIRSAKeyBits(k.RSA.N.BitLen()), Exponent: exponent,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.RSA.N.Bytes()}),
	}
}

// Name is the name of the key in policies.
func (k *SigningKey) Name(exponent uint32) []byte {
	return chip.ObjectName(tpm2.Marshal(k.public(exponent)))
}

// SameKey reports whether two signing keys, which may be nil, are the same.
func SameKey(a, b *SigningKey) bool {
	if a == nil || b == nil || a.RSA == nil || b.RSA == nil {
		return a == b
	}
	return bytes.Equal(a.Fingerprint[:], b.Fingerprint[:])
}
