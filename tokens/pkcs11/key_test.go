package pkcs11

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// oid is CKA_EC_PARAMS of a named curve.
func oid(t testing.TB, id asn1.ObjectIdentifier) []byte {
	t.Helper()
	b, err := asn1.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wireEC is a public key object with its point, wrapped in DER or not.
func wireEC(t testing.TB, c *curve, pub *ecdh.PublicKey, der bool) *wire.PublicKey {
	t.Helper()
	point := pub.Bytes()
	if der {
		var err error
		if point, err = asn1.Marshal(point); err != nil {
			t.Fatal(err)
		}
	}
	return &wire.PublicKey{Type: wire.EC, Params: oid(t, c.oid), Point: point}
}

func wireRSA(pub *rsa.PublicKey) *wire.PublicKey {
	return &wire.PublicKey{Type: wire.RSA, Modulus: pub.N.Bytes(), Exponent: big.NewInt(int64(pub.E)).Bytes()}
}

func TestPublicKeysOfEveryCurve(t *testing.T) {
	t.Parallel()
	for _, c := range curves {
		private, err := c.ecdh().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for _, der := range []bool{false, true} {
			k, err := parsePublicKey(wireEC(t, c, private.PublicKey(), der))
			if err != nil || k.String() != c.name || !k.ec.Equal(private.PublicKey()) {
				t.Errorf("%s, DER %v: %v, %v", c.name, der, k, err)
			}
		}
	}
}

func TestUnsuitableKeysSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	off := wireEC(t, curves[0], good.PublicKey(), true)
	off.Point[len(off.Point)-1] ^= 1
	huge := wireRSA(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 3})
	huge.Exponent = bytes.Repeat([]byte{0xff}, 9)
	for want, w := range map[string]*wire.PublicKey{
		"RSA-1024":                    wireRSA(&small.PublicKey),
		"RSA-0":                       {Type: wire.RSA},
		"RSA-16384":                   wireRSA(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 3}),
		"impossible modulus":          huge,
		"elliptic curve 1.3.132.0.10": {Type: wire.EC, Params: oid(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10})},
		"curve without a name":        {Type: wire.EC, Params: []byte{0x30, 0}},
		"malformed point":             {Type: wire.EC, Params: oid(t, curves[0].oid), Point: []byte{4, 1}},
		"off the curve":               off,
		"neither RSA nor EC":          {Type: "ed25519"},
		"key that can be read":        {Certificate: true},
	} {
		if k, err := parsePublicKey(w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %q", k, err, want)
		}
	}
}

func TestSecretsComeBack(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := parsePublicKey(wireRSA(&private.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	s, point, err := newSecret(k)
	if err != nil || s.Len() != 128 || point != nil {
		t.Fatalf("%d bytes, point %x, %v", s.Len(), point, err)
	}
	defer s.Wipe()
	for _, padding := range []wire.Padding{wire.PKCS1, wire.OAEPSHA1, wire.OAEPSHA256} {
		ciphertext, err := encrypt(k.rsa, padding, s)
		if err != nil || len(ciphertext) != 256 {
			t.Fatalf("%s: %d bytes, %v", padding, len(ciphertext), err)
		}
		if padding != wire.OAEPSHA1 {
			continue
		}
		if plain, err := rsa.DecryptOAEP(sha1.New(), nil, private, ciphertext, nil); err != nil || !bytes.Equal(plain, s.Bytes()) {
			t.Errorf("%s: %v", padding, err)
		}
	}
	if _, err := encrypt(k.rsa, "oaep-md5", s); err == nil {
		t.Error("encrypted with a padding that nobody knows")
	}
}

func TestSharedSecretKeepsLeadingZeros(t *testing.T) {
	t.Parallel()
	card, err := ecdh.P521().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := parsePublicKey(wireEC(t, curves[2], card.PublicKey(), true))
	if err != nil {
		t.Fatal(err)
	}
	s, point, err := newSecret(k)
	if err != nil || s.Len() != 66 || len(point) != curves[2].pointSize() {
		t.Fatalf("%d and %d bytes, %v", s.Len(), len(point), err)
	}
	defer s.Wipe()
	theirs, err := ecdh.P521().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	x, err := card.ECDH(theirs)
	if err != nil || !bytes.Equal(x, s.Bytes()) {
		t.Errorf("the card derives something else: %v", err)
	}
	full, err := fullLength(secret.Take(bytes.TrimLeft(x, "\x00")), 66)
	if err != nil || !full.Equal(s) {
		t.Errorf("a token that drops zeros: %v", err)
	}
	full.Wipe()
	if _, err := fullLength(secret.New(67), 66); err == nil {
		t.Error("a coordinate that is too long is taken")
	}
}

func TestPointsOffTheCurveAreNotSentToTheCard(t *testing.T) {
	t.Parallel()
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := private.PublicKey().Bytes()
	bad := bytes.Clone(good)
	bad[64] ^= 1
	p256, unknown := &wire.PrivateKey{Params: oid(t, curves[0].oid)}, &wire.PrivateKey{Params: oid(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10})}
	for _, c := range []struct {
		key   *wire.PrivateKey
		point []byte
		want  error
	}{
		{p256, good, nil},
		{&wire.PrivateKey{}, good, nil},
		{p256, bad, tokens.ErrMalformed},
		{&wire.PrivateKey{}, bad, tokens.ErrMalformed},
		{p256, append([]byte{2}, good[1:33]...), tokens.ErrMalformed},
		{p256, nil, tokens.ErrMalformed},
		{unknown, good, tokens.ErrUnsupported},
		{&wire.PrivateKey{}, good[:61], tokens.ErrUnsupported},
	} {
		if err := checkPoint(c.key, c.point); !errors.Is(err, c.want) {
			t.Errorf("point of %d bytes: %v, want %v", len(c.point), err, c.want)
		}
	}
}

func FuzzPublicKey(f *testing.F) {
	f.Add([]byte{1, 0, 1}, []byte{6, 1, 1}, []byte{4, 1, 4}, true)
	f.Fuzz(func(t *testing.T, a, b, c []byte, ec bool) {
		w := &wire.PublicKey{Type: wire.RSA, Modulus: a, Exponent: b}
		if ec {
			w = &wire.PublicKey{Type: wire.EC, Params: b, Point: c}
		}
		if k, err := parsePublicKey(w); err == nil {
			if s, _, err := newSecret(k); err == nil {
				s.Wipe()
			}
		}
	})
}

// spki is the DER form of the public key with that point, whose length says on
// which curve it is.
func spki(t testing.TB, point []byte) []byte {
	t.Helper()
	for _, c := range curves {
		if c.pointSize() != len(point) {
			continue
		}
		pub, err := c.ecdh().NewPublicKey(point)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	t.Fatalf("no curve for a point of %d bytes", len(point))
	return nil
}
