package combo

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"luksmith/luks2/secret"
)

const (
	deriveInfo = "luksmith-combo v1"
	keySize    = 32
)

// passphrase derives what opens the keyslot from the secrets of all factors, in
// their order. They are borrowed; the caller wipes the result.
func (t *token) passphrase(secrets []secret.Secret) (secret.Secret, error) {
	key, err := t.derive(secrets)
	if err != nil {
		return secret.Secret{}, err
	}
	defer key.Wipe()
	return secret.Base64(key), nil
}

func (t *token) derive(secrets []secret.Secret) (secret.Secret, error) {
	size := 0
	for _, s := range secrets {
		size += 4 + s.Len()
	}
	material := secret.New(size)
	defer material.Wipe()
	at := material.Bytes()
	for _, s := range secrets {
		binary.BigEndian.PutUint32(at, uint32(s.Len()))
		at = at[4+copy(at[4:], s.Bytes()):]
	}
	out := secret.New(keySize)
	var err error
	secret.Do(func() {
		var key []byte
		if key, err = hkdf.Key(sha256.New, material.Bytes(), t.salt, t.info(), keySize); err == nil {
			copy(out.Bytes(), key)
			secret.Wipe(key)
		}
	})
	if err != nil {
		out.Wipe()
		return secret.Secret{}, err
	}
	return out, nil
}

// info binds the key to the factors that it is of.
func (t *token) info() string {
	info := []byte(deriveInfo)
	for _, f := range t.factors {
		info = binary.BigEndian.AppendUint32(info, uint32(len(f.identity)))
		info = append(info, f.identity...)
	}
	return string(info)
}
