package luks2

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"strings"
	"testing"

	"luksmith/luks2/secret"
)

// TestDerivationsEqualTheLibraries compares with crypto/hmac, pbkdf2 and hkdf, over
// keys around the block size.
func TestDerivationsEqualTheLibraries(t *testing.T) {
	for _, length := range []int{1, 4, 31, 32, 63, 64, 65, 128, 129} {
		key := secret.Copy(bytes.Repeat([]byte{'k'}, length))
		for name, h := range map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New} {
			mac := hmac.New(h, key.Bytes())
			mac.Write([]byte("ab"))
			if got := HMAC(name, key, []byte("a"), nil, []byte("b")); !bytes.Equal(got, mac.Sum(nil)) {
				t.Errorf("HMAC-%s with %d bytes: %x", name, length, got)
			}
		}
		out := secret.New(32)
		want, err := pbkdf2.Key(sha256.New, strings.Repeat("k", length), []byte("salt"), 10, 32)
		if err := errors.Join(err, PBKDF2(t.Context(), key, []byte("salt"), 10, out)); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("PBKDF2 of %d bytes: %v, %x", length, err, out.Bytes())
		}
		want, err = hkdf.Key(sha256.New, key.Bytes(), key.Bytes(), "info", 32)
		if err := errors.Join(err, HKDF(key, key, "info", out)); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("HKDF of %d bytes: %v, %x", length, err, out.Bytes())
		}
		key.Wipe()
		out.Wipe()
	}
	if err := HKDF(secret.Copy([]byte("k")), secret.Copy([]byte("s")), "", secret.New(33)); err == nil {
		t.Error("HKDF gives more than one block")
	}
}

func TestCheckMemory(t *testing.T) {
	if err := CheckMemory(8 << 10); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*CostError](CheckMemory(1 << 40)); !ok {
		t.Error("a petabyte is available")
	}
	if err := CheckMemory(meminfoKiB("MemTotal:") - 1); meminfoKiB("MemTotal:") < maxArgon2MemoryKiB && !errors.Is(err, ErrNoMemory) {
		t.Errorf("all memory of the machine: %v", err)
	}
}
