// Package certificate takes the public key out of a certificate. It is a package
// of its own because only the helper program needs crypto/x509: a tenth of a
// megabyte that cryptsetup-unit does without.
package certificate

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"

	"luksmith/tokens/pkcs11/wire"
)

// PublicKey describes the key of an X.509 certificate, in DER, as the module would
// describe the public key object for it. Nothing else of the certificate is
// looked at: it is the user's own, and nobody else's word counts.
func PublicKey(der []byte) (*wire.PublicKey, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	switch pub := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return &wire.PublicKey{Type: wire.RSA, Modulus: pub.N.Bytes(), Exponent: big.NewInt(int64(pub.E)).Bytes()}, nil
	case *ecdsa.PublicKey:
		return ecKey(cert.RawSubjectPublicKeyInfo)
	}
	return nil, errors.New("neither RSA nor EC")
}

// ecKey reads a SubjectPublicKeyInfo (RFC 5480 §2).
func ecKey(der []byte) (*wire.PublicKey, error) {
	var info struct {
		Algorithm struct {
			Algorithm asn1.ObjectIdentifier
			Curve     asn1.RawValue
		}
		Point asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	return &wire.PublicKey{Type: wire.EC, Params: info.Algorithm.Curve.FullBytes, Point: info.Point.Bytes}, nil
}
