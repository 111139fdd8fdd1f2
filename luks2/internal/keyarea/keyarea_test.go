package keyarea

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"luksmith/luks2/internal/hashes"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// TestXTSEqualsTheLibrary compares with golang.org/x/crypto/xts.
func TestXTSEqualsTheLibrary(t *testing.T) {
	for _, size := range []int{32, 48, 64} {
		key, plain := randomBytes(size), randomBytes(40*sectorSize)
		reference, err := xts.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, len(plain))
		for i := 0; i < len(plain); i += sectorSize {
			reference.Encrypt(want[i:i+sectorSize], plain[i:i+sectorSize], uint64(i/sectorSize))
		}
		checkCipher(t, "aes-xts-plain64", key, plain, want)
	}
}

// TestCBCEqualsTheLibrary compares with crypto/cipher, with every rule for IVs.
func TestCBCEqualsTheLibrary(t *testing.T) {
	encrypted := func(key, iv []byte) {
		b, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		b.Encrypt(iv, iv)
	}
	for rule, iv := range map[string]func(iv, key []byte, sector uint64){
		"null":      func([]byte, []byte, uint64) {},
		"plain":     func(iv, _ []byte, n uint64) { binary.LittleEndian.PutUint64(iv, n) },
		"plain64":   func(iv, _ []byte, n uint64) { binary.LittleEndian.PutUint64(iv, n) },
		"plain64be": func(iv, _ []byte, n uint64) { binary.BigEndian.PutUint64(iv[8:], n) },
		"benbi":     func(iv, _ []byte, n uint64) { binary.BigEndian.PutUint64(iv[8:], n*32+1) },
		"eboiv": func(iv, key []byte, n uint64) {
			binary.LittleEndian.PutUint64(iv, n*512)
			encrypted(key, iv)
		},
		"essiv:sha256": func(iv, key []byte, n uint64) {
			binary.LittleEndian.PutUint64(iv, n)
			salt := sha256.Sum256(key)
			encrypted(salt[:], iv)
		},
	} {
		for _, size := range []int{16, 24, 32} {
			key, plain := randomBytes(size), randomBytes(7*sectorSize)
			b, _ := aes.NewCipher(key)
			want := slices.Clone(plain)
			for i := 0; i < len(want); i += sectorSize {
				v := make([]byte, 16)
				iv(v, key, uint64(i/sectorSize))
				cipher.NewCBCEncrypter(b, v).CryptBlocks(want[i:i+sectorSize], want[i:i+sectorSize])
			}
			checkCipher(t, "aes-cbc-"+rule, key, plain, want)
			checkCipher(t, "capi:cbc(aes)-"+rule, key, plain, want)
		}
	}
}

func checkCipher(t *testing.T, name string, key, plain, want []byte) {
	t.Helper()
	c, err := ByName(name, len(key))
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Clone(plain)
	if err := c.Encrypt(key, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s, %d bytes of key: wrong ciphertext", name, len(key))
	}
	if err := c.Decrypt(key, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, plain) {
		t.Errorf("%s, %d bytes of key: Decrypt is not the inverse of Encrypt", name, len(key))
	}
}

func TestUnknownCiphers(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
	}{
		{"aes-xts-plain64", 16}, {"aes-xts-plain64", 65}, {"aes-xts-plain64", 33}, {"aes-cbc-plain64", 33}, {"aes-cbc-essiv:sha1", 32}, {"aes-cbc-essiv", 32},
		{"aes-cbc-random", 32}, {"aes-ecb-plain64", 32}, {"cipher_null-ecb", 16}, {"cipher_null-cbc-plain", 16}, {"capi:ecb(cipher_null)-null", 16},
		{"", 0}, {"", 32}, {"-", 32}, {"--", 32}, {"aes:64-cbc-lmk", 32}, {"aes-xts(ecb-plain64", 32}, {"capi:xts(aes", 32}, {"capi:authenc(hmac(sha256),xts(aes))-random", 64},
		{"../../x-cbc-plain", 32}, {"aes-cbc-plain64", 1 << 20}, {"aes-cbc-plain64", -1},
	} {
		_, err := ByName(c.name, c.size)
		if e, ok := errors.AsType[*CipherError](err); !ok || len(e.Modules) > 0 {
			t.Errorf("%q with %d bytes: %v", c.name, c.size, err)
		}
	}
}

// TestACipherThatTheKernelLacksNamesItsModules, on whatever kernel this is.
func TestACipherThatTheKernelLacksNamesItsModules(t *testing.T) {
	_, err := ByName("nosuchcipher-xts-plain64", 64)
	e, ok := errors.AsType[*CipherError](err)
	if !ok || !slices.Equal(e.Modules, []string{"algif_skcipher", "xts", "nosuchcipher"}) {
		t.Errorf("%v", err)
	}
}

func TestModulesOfTheKernel(t *testing.T) {
	for name, want := range map[string]string{
		"serpent-xts-plain64":            "algif_skcipher xts serpent_generic",
		"xchacha12,aes-adiantum-plain64": "algif_skcipher adiantum chacha_generic",
		"capi:lrw(twofish)-benbi":        "algif_skcipher lrw twofish_generic",
		"aes-lrw-benbi":                  "algif_skcipher lrw aes_generic",
		"camellia-cbc-essiv:sha256":      "algif_skcipher cbc camellia_generic",
		"serpent":                        "algif_skcipher cbc serpent_generic",
		"twofish-plain":                  "algif_skcipher cbc twofish_generic",
		"des3_ede-ecb":                   "algif_skcipher ecb des_generic",
	} {
		if a, ok := parse(name); !ok || strings.Join(a.modules(), " ") != want {
			t.Errorf("%s: %v %v", name, ok, a.modules())
		}
	}
}

func TestMergeUndoesSplit(t *testing.T) {
	for _, name := range []string{"sha1", "sha224", "sha256", "sha384", "sha512", "whirlpool", "ripemd160", "blake2b-512", "blake2s-256", "sm3"} {
		for _, size := range []int{16, 20, 32, 64, 96, 128} {
			f, _ := hashes.ByName(name)
			key, got := randomBytes(size), make([]byte, size)
			split := randomBytes(SplitSize(size))
			Split(f, key, split)
			Merge(f, split, got)
			if !bytes.Equal(got, key) {
				t.Errorf("%s, %d bytes: another key comes back", name, size)
			}
			split[size*1234+size/2] ^= 1
			Merge(f, split, got)
			if bytes.Equal(got, key) {
				t.Errorf("%s, %d bytes: a flipped bit in stripe 1234 changes nothing", name, size)
			}
		}
	}
}

func BenchmarkXTS256KiB(b *testing.B) {
	key, area := randomBytes(64), randomBytes(256<<10)
	c, _ := ByName("aes-xts-plain64", 64)
	b.Run("luksmith", func(b *testing.B) {
		b.SetBytes(int64(len(area)))
		for b.Loop() {
			_ = c.Decrypt(key, area)
		}
	})
	b.Run("x-crypto", func(b *testing.B) {
		b.SetBytes(int64(len(area)))
		for b.Loop() {
			x, _ := xts.NewCipher(aes.NewCipher, key)
			for i := 0; i < len(area); i += sectorSize {
				x.Decrypt(area[i:i+sectorSize], area[i:i+sectorSize], uint64(i/sectorSize))
			}
		}
	})
}

func BenchmarkAFMerge(b *testing.B) {
	for _, name := range []string{"sha256", "sha512"} {
		b.Run(fmt.Sprintf("%s-64", name), func(b *testing.B) {
			f, _ := hashes.ByName(name)
			stripes, key := randomBytes(SplitSize(64)), make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				Merge(f, stripes, key)
			}
		})
	}
}
