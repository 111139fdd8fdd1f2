package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
)

// TestPrivateKeysAreReadAsByX509 in both forms.
func TestPrivateKeysAreReadAsByX509(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for form, der := range map[string][]byte{"PKCS#1": x509.MarshalPKCS1PrivateKey(key), "PKCS#8": pkcs8} {
		if got, err := ParsePrivateKey(der); err != nil || !got.Equal(key) {
			t.Errorf("%s: %v", form, err)
		}
		for _, cut := range []int{0, 1, 4, 30, len(der) / 2, len(der) - 1} {
			if _, err := ParsePrivateKey(der[:cut]); err == nil {
				t.Errorf("%s of %d bytes is taken", form, cut)
			}
		}
	}
}

// TestOtherPrivateKeysAreRefused: of another algorithm, of three primes, of numbers that
// do not belong together.
func TestOtherPrivateKeysAreRefused(t *testing.T) {
	t.Parallel()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	three, torn := x509.MarshalPKCS1PrivateKey(key), x509.MarshalPKCS1PrivateKey(key)
	three[6] = 1      // the version, behind two headers
	torn[100] ^= 0x40 // the modulus
	for name, der := range map[string][]byte{"EC": ec, "three primes": three, "torn": torn} {
		if _, err := ParsePrivateKey(der); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x509.MarshalPKCS1PrivateKey(key))
	f.Fuzz(func(t *testing.T, der []byte) {
		if key, err := ParsePrivateKey(der); err == nil && key.Validate() != nil {
			t.Error("taken, and no key")
		}
	})
}
