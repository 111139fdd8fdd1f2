package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"luksmith/tokens/pkcs11/wire"
)

func selfSigned(t testing.TB, private crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now()}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestKeysOfCertificates(t *testing.T) {
	t.Parallel()
	oids := map[elliptic.Curve][]byte{ // CKA_EC_PARAMS of P-224 to P-521 (RFC 5480 §2.1.1.1)
		elliptic.P224(): {6, 5, 0x2b, 0x81, 4, 0, 33},
		elliptic.P256(): {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7},
		elliptic.P384(): {6, 5, 0x2b, 0x81, 4, 0, 34},
		elliptic.P521(): {6, 5, 0x2b, 0x81, 4, 0, 35},
	}
	for curve, params := range oids {
		private, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		got, err := PublicKey(selfSigned(t, private))
		if err != nil || got.Type != wire.EC || !bytes.Equal(got.Params, params) || !bytes.Equal(got.Point, point) {
			t.Errorf("%s: %+v, %v", curve.Params().Name, got, err)
		}
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	got, err := PublicKey(selfSigned(t, private))
	if err != nil || got.Type != wire.RSA || !bytes.Equal(got.Modulus, private.N.Bytes()) || !bytes.Equal(got.Exponent, []byte{1, 0, 1}) {
		t.Errorf("RSA: %+v, %v", got, err)
	}
}

func TestCertificatesWithoutAKeyForUs(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{"ed25519": selfSigned(t, private), "empty": nil, "cut": {0x30}} {
		if got, err := PublicKey(der); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzCertificate(f *testing.F) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(selfSigned(f, private))
	f.Fuzz(func(t *testing.T, der []byte) {
		if got, err := PublicKey(der); err == nil && got.Type != wire.RSA && got.Type != wire.EC {
			t.Errorf("%+v", got)
		}
	})
}
