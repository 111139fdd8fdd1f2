package tpm2

import (
	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/chip"
)

// seal makes the secret and one sealed object for every part of it.
func (e *enrollment) seal(keys pinKeys) error {
	e.secret = secret.Random(sealedSecretSize * len(e.t.policy))
	e.t.blobs = nil
	for i, policy := range e.t.policy {
		part := secret.Copy(e.secret.Bytes()[i*sealedSecretSize : (i+1)*sealedSecretSize])
		object := chip.Object{Policy: policy, Auth: keys.auth, Data: part}
		var blob chip.Blob
		var err error
		if e.c == nil {
			blob, err = chip.SealOffline(e.t.Parent, object)
		} else {
			blob, err = e.c.Seal(e.t.Parent, object)
		}
		part.Wipe()
		if err != nil {
			return err
		}
		e.t.blobs = append(e.t.blobs, blob)
	}
	return nil
}
