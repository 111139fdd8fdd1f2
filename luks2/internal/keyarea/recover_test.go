package keyarea

import (
	"bytes"
	"errors"
	"testing"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// TestRecoverGivesTheKeyBack from parts of its area: eight, and as many stripes in each
// but the last as a sector has bytes.
func TestRecoverGivesTheKeyBack(t *testing.T) {
	for _, name := range []string{"sha256", "sha512", "whirlpool"} {
		for _, size := range []int{1, 20, 32, 64, 96, 512} {
			f, _ := hashes.ByName(name)
			c, err := ByName("aes-xts-plain64", 64)
			if err != nil {
				t.Fatal(err)
			}
			want, area := randomBytes(size), make([]byte, SplitSize(size))
			areaKey, key := secret.Random(64), secret.New(size)
			Split(f, want, area)
			if err := c.Encrypt(areaKey.Bytes(), area); err != nil {
				t.Fatal(err)
			}
			parts := 0
			read := func(part []byte, at int) error {
				if parts++; len(part) > size*sectorSize {
					t.Errorf("a part of %d bytes", len(part))
				}
				copy(part, area[at:])
				return nil
			}
			if err := c.Recover(f, areaKey, key, read); err != nil || !bytes.Equal(key.Bytes(), want) || parts != 8 {
				t.Errorf("%s, %d bytes, %d parts: %v, or another key", name, size, parts, err)
			}
			broken := errors.New("broken")
			if err := c.Recover(f, areaKey, key, func(_ []byte, at int) error {
				if at > 0 {
					return broken
				}
				return nil
			}); err != broken {
				t.Errorf("an area that cannot be read: %v", err)
			}
		}
	}
	f, _ := hashes.ByName("sha256")
	var e *CipherError
	err := Cipher{"aes-xts-plain64", algorithm{"aes", "xts", "plain64"}}.Recover(f, secret.Random(33), secret.New(64), nil)
	if !errors.As(err, &e) || e.KeySize != 33 {
		t.Errorf("an area key of 33 bytes: %v", err)
	}
}
