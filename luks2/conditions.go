package luks2

import (
	"crypto/sha256"

	"luksmith/luks2/internal/kdf"
)

// conditionsInfo separates the key from others that may be derived from a volume
// key; it is part of the format.
const conditionsInfo = "luksmith token conditions v1"

// KeyFingerprint names a volume key without telling anything about it: a hash of
// what recognises it on its volume. It is another one after a re-encryption, and
// after `cryptsetup luksUUID`. The zero value names no key.
type KeyFingerprint [sha256.Size]byte

// ConditionsMAC authenticates what a token demands: HMAC-SHA-256 under a key that
// is derived from the volume key and the UUID of its volume. Whoever can write the
// header but has no key cannot make one. The same volume key and canonical bytes
// give the same MAC for as long as [VolumeKey.Fingerprint] stays the same.
func (k *VolumeKey) ConditionsMAC(canonical []byte) [sha256.Size]byte {
	return kdf.HKDF{Salt: k.of.uuid, Info: conditionsInfo}.MAC(k.Key, canonical)
}

// Fingerprint is that of the key in hand. A MAC that was stored beside another
// fingerprint says nothing about this key.
func (k *VolumeKey) Fingerprint() KeyFingerprint { return k.fingerprint }

// KeyFingerprint is that of the key of the data segment; zero if no digest
// recognises it.
func (h *Header) KeyFingerprint() KeyFingerprint {
	s, ok := h.DataSegment()
	if !ok {
		return KeyFingerprint{}
	}
	for i := range h.Digests {
		d := &h.Digests[i]
		for _, id := range d.Segments {
			if id == s.ID {
				return d.fingerprint(h.UUID)
			}
		}
	}
	return KeyFingerprint{}
}

// fingerprint hashes UUID, NUL, salt and value. The salt of a digest that can
// recognise anything has 32 bytes, so that nothing is ambiguous.
func (d *Digest) fingerprint(uuid string) KeyFingerprint {
	b := append([]byte(uuid), 0)
	b = append(b, d.Salt...)
	return sha256.Sum256(append(b, d.Value...))
}
