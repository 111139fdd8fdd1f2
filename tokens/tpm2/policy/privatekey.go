package policy

import (
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errNoPrivateKey says nothing about the text, which is secret.
var errNoPrivateKey = errors.New("is not an RSA private key of two primes")

// ParsePrivateKey reads an RSA key in a PrivateKeyInfo (RFC 5208 §5) or alone
// (RFC 8017 §A.1.2). crypto/x509 would read it as well, but costs a fiftieth of each
// start of cryptenroll: it brings Ed25519, which computes its base point then.
func ParsePrivateKey(der []byte) (*rsa.PrivateKey, error) {
	outer, info, algorithm, inner := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil), cryptobyte.String(nil)
	var version int
	var oid asn1.ObjectIdentifier
	if outer.ReadASN1(&info, cryptobyteasn1.SEQUENCE) && info.ReadASN1Integer(&version) &&
		info.ReadASN1(&algorithm, cryptobyteasn1.SEQUENCE) && algorithm.ReadASN1ObjectIdentifier(&oid) && oid.Equal(oidRSA) &&
		info.ReadASN1(&inner, cryptobyteasn1.OCTET_STRING) {
		der = inner
	}
	return parseRSAPrivateKey(der)
}

func parseRSAPrivateKey(der []byte) (*rsa.PrivateKey, error) {
	outer, numbers := cryptobyte.String(der), cryptobyte.String(nil)
	n, d, p, q := new(big.Int), new(big.Int), new(big.Int), new(big.Int)
	version, exponent := 0, 0
	if !outer.ReadASN1(&numbers, cryptobyteasn1.SEQUENCE) || !outer.Empty() ||
		!numbers.ReadASN1Integer(&version) || version != 0 || !numbers.ReadASN1Integer(n) || !numbers.ReadASN1Integer(&exponent) ||
		!numbers.ReadASN1Integer(d) || !numbers.ReadASN1Integer(p) || !numbers.ReadASN1Integer(q) {
		return nil, errNoPrivateKey
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: exponent}, D: d, Primes: []*big.Int{p, q}} // what can be computed from these is not read
	if err := key.Validate(); err != nil {
		return nil, errNoPrivateKey
	}
	key.Precompute()
	return key, nil
}
