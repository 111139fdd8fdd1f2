package tpm2

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"

	"luksmith/tokens/tpm2/policy"
)

// nullCredential is the type of credentials that systemd "encrypts" with the hash
// of nothing, for what is public but has to come in this form: 05 84 69 da … (systemd
// 262 src/shared/creds-util.h, CRED_AES256_GCM_BY_NULL).
const nullCredential = "058469daf6f54324800549da0f8ea2fb"

// openCredential takes the content out of a null credential:
//
//	16 bytes type, then in 32 bits each, little-endian, the sizes of key (32),
//	block, IV (12) and tag (16), the IV, zeros up to a multiple of eight;
//	encrypted with AES-256-GCM, all before as additional data: two times of 64 bits,
//	the size of the name in 32 bits, the name, zeros up to a multiple of eight,
//	the content.
func openCredential(text []byte) ([]byte, error) {
	b := text
	if decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), "")); err == nil {
		b = decoded
	}
	const ivAt, ivSize, headSize = 32, 12, 48
	if len(b) < headSize || hex.EncodeToString(b[:16]) != nullCredential {
		return nil, errors.New("is not a credential that needs no key")
	}
	sizes := [4]uint32{}
	for i := range sizes {
		sizes[i] = binary.LittleEndian.Uint32(b[16+4*i:])
	}
	if sizes != [4]uint32{sha256.Size, 1, ivSize, 16} {
		return nil, errors.New("is a credential of unknown form")
	}
	key := sha256.Sum256(nil)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, b[ivAt:ivAt+ivSize], b[headSize:], b[:headSize])
	if err != nil {
		return nil, errors.New("is a damaged credential")
	}
	return credentialContent(plain)
}

// credentialContent takes the content out of what was encrypted.
func credentialContent(plain []byte) ([]byte, error) {
	const metaSize = 8 + 8 + 4
	if len(plain) < metaSize {
		return nil, errors.New("is a credential that is cut short")
	}
	n := (metaSize + uint64(binary.LittleEndian.Uint32(plain[16:])) + 7) &^ 7
	if n > uint64(len(plain)) {
		return nil, errors.New("is a credential that is cut short")
	}
	return bytes.Clone(plain[n:]), nil
}

// pcrlockCredentials are the policies that systemd-pcrlock put beside the kernels,
// where the boot stub picks them up for the initrd.
func (p Paths) pcrlockCredentials() []*policy.PCRLock {
	var list []*policy.PCRLock
	for _, pattern := range []string{"/run/credentials/@encrypted/pcrlock.*", "/.extra/global_credentials/pcrlock.*", "/.extra/credentials/pcrlock.*"} {
		paths, _ := filepath.Glob(p.join(pattern)) // the patterns are well formed
		for _, path := range paths {
			text, err := readFile(path)
			if err != nil {
				continue
			}
			content, err := openCredential(text)
			if err != nil {
				continue
			}
			if lock, err := policy.ParsePCRLock(content); err == nil {
				lock.Path = path
				list = append(list, lock)
			}
		}
	}
	return list
}
