package luks2

import (
	"context"
	"errors"
	"slices"
	"testing"

	"luksmith/luks2/secret"
)

// manyKeyslots is a header with n keyslots of the most expensive kind.
func manyKeyslots(n int) *Header {
	h := &Header{Segments: []Segment{{ID: 0, Type: "crypt"}}}
	d := Digest{Type: "pbkdf2", Hash: "sha256", Iterations: 1000, Salt: make([]byte, 32), Value: make([]byte, 32), Segments: []int{0}}
	for i := range n {
		d.Keyslots = append(d.Keyslots, i)
		h.Keyslots = append(h.Keyslots, Keyslot{
			ID: i, Type: "luks2", KeySize: 64, Priority: PriorityNormal, AF: AF{Type: "luks1", Hash: "sha256", Stripes: 4000},
			Area: Area{Encryption: "aes-xts-plain64", KeySize: 64, Size: 258048},
			KDF:  KDF{Type: KDFPBKDF2, Hash: "sha256", Iterations: maxPBKDF2Iterations, Salt: make([]byte, 32)},
		})
	}
	h.Digests = []Digest{d}
	return h
}

// TestKeyslotsBeyondThirtyTwoAreNotTried: a header of 4 MiB has room for 1900.
func TestKeyslotsBeyondThirtyTwoAreNotTried(t *testing.T) {
	t.Parallel()
	h := manyKeyslots(1900)
	if order := h.PassphraseOrder(); len(order) != MaxKeyslots || slices.Max(order) != MaxKeyslots-1 {
		t.Errorf("%d are tried, up to %d", len(order), slices.Max(order))
	}
	if err := h.KeyslotObstacle(MaxKeyslots); err == nil {
		t.Error("keyslot 32 has no obstacle")
	}
}

// TestTheCostOfAllKeyslotsIsBounded and those that are left out are named.
func TestTheCostOfAllKeyslotsIsBounded(t *testing.T) {
	t.Parallel()
	h := manyKeyslots(32)
	// The digest is what costs; it is not come to, since no area can be read.
	sum := 0.0
	for i := range h.Keyslots {
		h.Keyslots[i].KDF.Iterations = 1
		h.Digests[0].Iterations = maxPBKDF2Iterations / 2
		sum += h.share(i)
	}
	_, err := h.tryKeyslots(context.Background(), room{storage: memory(nil)}, h.PassphraseOrder(), secret.Secret{})
	var none *NoKeyError
	if !errors.As(err, &none) {
		t.Fatal(err)
	}
	left := 0
	for _, s := range none.Skipped {
		if errors.Is(s, errTooMuch) {
			left++
		}
	}
	if sum < 15 || left < 18 || left > 21 {
		t.Errorf("of costs of %.1f, %d keyslots are left out", sum, left)
	}
}

// TestThirtyTwoKeyslotsOfCryptsetupAreAllTried: the bound is no matter for a volume
// as people have it.
func TestThirtyTwoKeyslotsOfCryptsetupAreAllTried(t *testing.T) {
	t.Parallel()
	h := manyKeyslots(32)
	sum := 0.0
	for i := range h.Keyslots {
		h.Keyslots[i].KDF = KDF{Type: KDFArgon2id, Time: 10, MemoryKiB: 1 << 20, Parallel: 4, Salt: make([]byte, 32)}
		sum += h.share(i)
	}
	if sum > maxShares {
		t.Errorf("they cost %.1f", sum)
	}
}
