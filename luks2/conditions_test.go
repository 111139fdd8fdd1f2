package luks2

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"luksmith/luks2/secret"
)

// TestConditionsMACVector is the vector of docs/formats.md, which Python's hmac
// and hashlib computed.
func TestConditionsMACVector(t *testing.T) {
	const uuid = "12345678-1234-4234-8234-123456789abc"
	key := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	d := &Digest{Salt: bytes.Repeat([]byte{0xaa}, 32), Value: bytes.Repeat([]byte{0xbb}, 32)}
	vk := &VolumeKey{Key: secret.Copy(key), of: identity{uuid: uuid}, fingerprint: d.fingerprint(uuid)}
	defer vk.Wipe()
	mac := vk.ConditionsMAC([]byte("conditions"))
	if got := hex.EncodeToString(mac[:]); got != "cdee04d472591be3d6bb8932abbacdf89a722c21cd4f9d91e68c4ff70c287219" {
		t.Errorf("MAC %s", got)
	}
	fingerprint := vk.Fingerprint()
	if got := hex.EncodeToString(fingerprint[:]); got != "f56d9abeac6b5819d577c89ac7ed37a470740f92ae49b8793b07aad74dd9436e" {
		t.Errorf("fingerprint %s", got)
	}
}

// TestConditionsMACEqualsTheLibrary compares with crypto/hkdf over lengths around
// the block size.
func TestConditionsMACEqualsTheLibrary(t *testing.T) {
	for _, size := range []int{16, 32, 63, 64, 65, 96, 128} {
		for _, length := range []int{0, 1, 55, 56, 64, 1000} {
			vk := &VolumeKey{Key: secret.Random(size), of: identity{uuid: "u"}}
			message := bytes.Repeat([]byte{'m'}, length)
			key, err := hkdf.Key(sha256.New, vk.Key.Bytes(), []byte("u"), conditionsInfo, 32)
			if err != nil {
				t.Fatal(err)
			}
			want := hmac.New(sha256.New, key)
			want.Write(message)
			if got := vk.ConditionsMAC(message); !bytes.Equal(got[:], want.Sum(nil)) {
				t.Errorf("key of %d bytes, message of %d: %x", size, length, got)
			}
			vk.Wipe()
		}
	}
}
