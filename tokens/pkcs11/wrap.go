package pkcs11

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// newSecret makes what a token holds the key to: random bytes for an RSA key, half
// as many as the modulus has (systemd 262 src/shared/pkcs11-util.c), so that they
// fit with every padding; the shared secret of a new key pair and the card's for
// EC, whose public point then is the key of the record. The caller wipes it.
func newSecret(pub *publicKey) (s secret.Secret, point []byte, err error) {
	if pub.rsa != nil {
		return secret.Random(pub.rsa.Size() / 2), nil, nil
	}
	secret.Do(func() {
		var ephemeral *ecdh.PrivateKey
		if ephemeral, err = pub.curve.ecdh().GenerateKey(rand.Reader); err != nil {
			return
		}
		var x []byte
		if x, err = ephemeral.ECDH(pub.ec); err != nil {
			return
		}
		s, point = secret.Take(x), ephemeral.PublicKey().Bytes()
	})
	if err != nil {
		return secret.Secret{}, nil, fmt.Errorf("agreeing on a key with the token's %s key: %w", pub, err)
	}
	return s, point, nil
}

// encrypt encrypts a secret for the card.
func encrypt(pub *rsa.PublicKey, padding wire.Padding, s secret.Secret) (ciphertext []byte, err error) {
	secret.Do(func() {
		switch padding {
		case wire.PKCS1:
			// The only form that systemd before 261 and many cards know. What makes
			// it dangerous, an oracle for its padding, is kept shut in the helper.
			//lint:ignore SA1019 see above
			ciphertext, err = rsa.EncryptPKCS1v15(rand.Reader, pub, s.Bytes())
		case wire.OAEPSHA1:
			ciphertext, err = encryptOAEP(sha1.New(), pub, s)
		case wire.OAEPSHA256:
			ciphertext, err = encryptOAEP(sha256.New(), pub, s)
		default:
			err = fmt.Errorf("unknown padding %q", padding)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("encrypting for the token: %w", err)
	}
	return ciphertext, nil
}

func encryptOAEP(h hash.Hash, pub *rsa.PublicKey, s secret.Secret) ([]byte, error) {
	return rsa.EncryptOAEP(h, rand.Reader, pub, s.Bytes(), nil)
}

// checkPoint refuses a point that is not on the curve of the card's key. A card
// that does not check, given such points, gives its private key away bit by bit.
func checkPoint(key *wire.PrivateKey, point []byte) error {
	if len(point) == 0 || point[0] != uncompressed {
		return &tokens.FieldError{Field: memberKey, Reason: "is not an uncompressed point"}
	}
	for _, c := range curves {
		if len(key.Params) == 0 && c.pointSize() == len(point) {
			return onCurve(c, point)
		}
	}
	c, err := curveByParams(key.Params)
	if err != nil {
		return fmt.Errorf("%w: %w", tokens.ErrUnsupported, err)
	}
	return onCurve(c, point)
}

func onCurve(c *curve, point []byte) error {
	if _, err := c.ecdh().NewPublicKey(point); err != nil {
		return &tokens.FieldError{Field: memberKey, Reason: "is not a point of " + c.name}
	}
	return nil
}

// fullLength puts back the leading zeros of an x coordinate, which some tokens
// drop; systemd and we enrol the full length.
func fullLength(x secret.Secret, size int) (secret.Secret, error) {
	defer x.Wipe()
	if x.Len() > size {
		return secret.Secret{}, errors.New("the token derived more than a coordinate")
	}
	full := secret.New(size)
	copy(full.Bytes()[size-x.Len():], x.Bytes())
	return full, nil
}
