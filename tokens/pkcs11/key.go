package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"luksmith/tokens/pkcs11/wire"
)

// Sizes of RSA keys that are enrolled, in bits. Go's crypto/rsa refuses the ones
// below 1024 anyway.
const (
	minRSA = 2048
	maxRSA = 4096
)

// uncompressed is the first byte of an uncompressed point: SEC 1 §2.3.3.
const uncompressed = 4

// curve is an elliptic curve that we can compute on.
type curve struct {
	name string // as people know it
	oid  asn1.ObjectIdentifier
	size int // of a coordinate in bytes
	ecdh func() ecdh.Curve
}

// pointSize is the length of an uncompressed point.
func (c *curve) pointSize() int { return 1 + 2*c.size }

var curves = []*curve{
	{"P-256", asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 32, ecdh.P256},
	{"P-384", asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 48, ecdh.P384},
	{"P-521", asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 66, ecdh.P521},
}

// curveByParams finds the curve of a CKA_EC_PARAMS, which is the DER form of its
// object identifier. The error names one that we do not know.
func curveByParams(params []byte) (*curve, error) {
	var oid asn1.ObjectIdentifier
	if der := cryptobyte.String(params); !der.ReadASN1ObjectIdentifier(&oid) || !der.Empty() {
		return nil, errors.New("elliptic curve without a name")
	}
	for _, c := range curves {
		if c.oid.Equal(oid) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("elliptic curve %v", oid)
}

// publicKey is the public half of a key on a token. One of rsa and ec is set.
type publicKey struct {
	id, label []byte
	rsa       *rsa.PublicKey
	ec        *ecdh.PublicKey
	curve     *curve // of ec
}

// parsePublicKey makes sense of what a module said about a key. The error says
// why the key cannot be used, such as "RSA-1024".
func parsePublicKey(w *wire.PublicKey) (*publicKey, error) {
	k := &publicKey{id: w.ID, label: w.Label}
	var err error
	switch {
	case w.Type == wire.RSA:
		err = k.setRSA(&rsa.PublicKey{N: new(big.Int).SetBytes(w.Modulus), E: exponent(w.Exponent)})
	case w.Type == wire.EC:
		err = k.setEC(w.Params, w.Point)
	case w.Certificate:
		err = errors.New("certificate without an RSA or EC key that can be read")
	default:
		err = errors.New("neither RSA nor EC")
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// exponent is 0, which no key has, for one that Go cannot represent.
func exponent(b []byte) int {
	e := new(big.Int).SetBytes(b)
	if !e.IsInt64() || e.Int64() > math.MaxInt32 {
		return 0
	}
	return int(e.Int64())
}

func (k *publicKey) setRSA(pub *rsa.PublicKey) error {
	bits := pub.N.BitLen()
	if bits < minRSA || bits > maxRSA {
		return fmt.Errorf("RSA-%d", bits)
	}
	if pub.E < 3 || pub.E%2 == 0 || bits%8 != 0 {
		return errors.New("RSA with an impossible modulus or exponent")
	}
	k.rsa = pub
	return nil
}

// setEC takes CKA_EC_POINT as the DER form of an OCTET STRING, which the
// specification asks for, or as the point itself, which some modules give.
func (k *publicKey) setEC(params, point []byte) error {
	c, err := curveByParams(params)
	if err != nil {
		return err
	}
	if len(point) != c.pointSize() {
		var content cryptobyte.String
		if der := cryptobyte.String(point); !der.ReadASN1(&content, cryptobyteasn1.OCTET_STRING) || !der.Empty() {
			return errors.New("EC with a malformed point")
		}
		point = content
	}
	k.ec, err = c.ecdh().NewPublicKey(point)
	if err != nil {
		return errors.New("EC with a point off the curve")
	}
	k.curve = c
	return nil
}

// String is the type and size for people: "RSA-2048", "P-256".
func (k *publicKey) String() string {
	if k.rsa != nil {
		return fmt.Sprintf("RSA-%d", k.rsa.N.BitLen())
	}
	return k.curve.name
}

// same reports whether both are the same key under the same CKA_ID, such as a
// public key object and the certificate for it.
func (k *publicKey) same(other *publicKey) bool {
	if !bytes.Equal(k.id, other.id) {
		return false
	}
	if k.rsa != nil {
		return other.rsa != nil && k.rsa.Equal(other.rsa)
	}
	return other.ec != nil && k.ec.Equal(other.ec)
}

// fits reports whether a private key can be the one that a record was made for.
// What the module does not tell counts as fitting.
func fits(key *wire.PrivateKey, r *record) bool {
	switch key.Type {
	case wire.RSA:
		modulus := bytes.TrimLeft(key.Modulus, "\x00")
		return !r.ec() && (len(modulus) == 0 || len(modulus) == len(r.key))
	case wire.EC:
		c, err := curveByParams(key.Params)
		return r.ec() && (err != nil || c.pointSize() == len(r.key)) // an unknown curve is reported when it is used
	}
	return false
}
