package chip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// SealOffline makes an object that only the TPM with p's private part can take,
// by TPM2_Import: what TPM2_Duplicate would return (TPM 2.0 Part 1 §23.3), without
// inner wrapping. go-tpm's CreateDuplicate does the same but leaves the plain
// secret on the heap.
func SealOffline(p *Parent, o Object) (Blob, error) {
	obfuscation := secret.Random(sha256.Size)
	defer obfuscation.Wipe()
	public := o.template(tpm2.TPMAObject{})
	unique := secret.Join(obfuscation, o.Data)
	defer unique.Wipe()
	sum := sha256.Sum256(unique.Bytes())
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: sum[:]})
	blob := Blob{Public: tpm2.Marshal(public)}

	plain, encrypted, err := p.encapsulation.Encapsulate(rand.Reader, "DUPLICATE")
	if err != nil {
		return blob, err
	}
	seed := secret.Take(plain)
	defer seed.Wipe()
	blob.Seed = encrypted
	area := o.sensitiveArea(obfuscation)
	defer area.Wipe()
	blob.Private, err = wrapOutside(seed, ObjectName(blob.Public), area)
	return blob, err
}

// sensitiveArea is TPM2B_SENSITIVE. The caller wipes it.
func (o Object) sensitiveArea(obfuscation secret.Secret) secret.Secret {
	n := 2 + 3*2 + o.Auth.Len() + obfuscation.Len() + o.Data.Len()
	s := secret.New(2 + n)
	b := binary.BigEndian.AppendUint16(s.Bytes()[:0], uint16(n))
	b = binary.BigEndian.AppendUint16(b, uint16(tpm2.TPMAlgKeyedHash))
	append2B(append2B(append2B(b, o.Auth.Bytes()), obfuscation.Bytes()), o.Data.Bytes())
	return s
}

// wrapOutside is the outer wrap of a duplicate: encrypted with a key from the
// seed, then authenticated with another.
func wrapOutside(seed secret.Secret, name []byte, sensitive secret.Secret) ([]byte, error) {
	encKey := kdfa(seed, "STORAGE", nonces{newer: name}, aesKey)
	defer encKey.Wipe()
	macKey := kdfa(seed, "INTEGRITY", nonces{}, sha256.Size)
	defer macKey.Wipe()
	encrypted := make([]byte, sensitive.Len())
	var integrity []byte
	var err error
	secret.Do(func() {
		var block cipher.Block
		if block, err = aes.NewCipher(encKey.Bytes()); err != nil {
			return
		}
		//lint:ignore SA1019 the mode is the standard's; the HMAC authenticates what it does not
		cipher.NewCFBEncrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(encrypted, sensitive.Bytes())
		integrity = luks2.HMAC("sha256", macKey, encrypted, name)
	})
	return append(append2B(nil, integrity), encrypted...), err
}
