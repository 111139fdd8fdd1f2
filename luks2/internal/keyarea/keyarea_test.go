package keyarea

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
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

// TestCBCEqualsTheLibrary compares with crypto/cipher.
func TestCBCEqualsTheLibrary(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		for _, name := range []string{"aes-cbc-plain64", "aes-cbc-plain", "aes-cbc-essiv:sha256"} {
			key, plain := randomBytes(size), randomBytes(7*sectorSize)
			b, _ := aes.NewCipher(key)
			want := slices.Clone(plain)
			for i := 0; i < len(want); i += sectorSize {
				var iv [16]byte
				binary.LittleEndian.PutUint64(iv[:], uint64(i/sectorSize))
				if name == "aes-cbc-essiv:sha256" {
					salt := sha256.Sum256(key)
					e, _ := aes.NewCipher(salt[:])
					e.Encrypt(iv[:], iv[:])
				}
				cipher.NewCBCEncrypter(b, iv[:]).CryptBlocks(want[i:i+sectorSize], want[i:i+sectorSize])
			}
			checkCipher(t, name, key, plain, want)
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
	c.Encrypt(key, got)
	if !bytes.Equal(got, want) {
		t.Errorf("%s, %d bytes of key: wrong ciphertext", name, len(key))
	}
	c.Decrypt(key, got)
	if !bytes.Equal(got, plain) {
		t.Errorf("%s, %d bytes of key: Decrypt is not the inverse of Encrypt", name, len(key))
	}
}

func TestUnknownCiphers(t *testing.T) {
	for _, c := range []struct {
		name string
		size int
	}{{"serpent-xts-plain64", 64}, {"aes-xts-plain64", 16}, {"aes-xts-plain64", 65}, {"aes-cbc-essiv:sha1", 32}, {"cipher_null-ecb", 16}, {"", 0}} {
		if _, err := ByName(c.name, c.size); err == nil {
			t.Errorf("%q with %d bytes is accepted", c.name, c.size)
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
			c.Decrypt(key, area)
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
