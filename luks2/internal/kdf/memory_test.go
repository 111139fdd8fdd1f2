package kdf

import (
	"crypto/rand"
	"encoding/hex"
	"runtime"
	"testing"

	"luksmith/internal/testenv"
	"luksmith/luks2/secret"
)

// TestPassphraseIsNotLeftOnTheHeap: the library's hash of the passphrase keeps what
// it was given.
func TestPassphraseIsNotLeftOnTheHeap(t *testing.T) {
	raw := secret.Random(20)
	passphrase, key := secret.New(40), secret.New(32)
	hex.Encode(passphrase.Bytes(), raw.Bytes())
	inverted := testenv.Inverted(passphrase.Bytes())
	a := Argon2{Salt: make([]byte, 32), Time: 1, MemoryKiB: 64, Lanes: 2}
	rand.Read(a.Salt)
	// With neighbours that stay, the memory does not go back to the kernel.
	neighbours := make([]*[360]byte, 200)
	for i := range neighbours {
		neighbours[i] = new([360]byte)
	}
	for i := 0; i < len(neighbours); i += 2 {
		neighbours[i] = nil
	}
	runtime.GC()
	if err := a.Key(t.Context(), passphrase, key); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(neighbours)
	secret.WipeAll([]secret.Secret{raw, passphrase, key})
	if n := testenv.Copies(t, inverted); n != 0 {
		t.Errorf("the passphrase is in memory %d times", n)
	}
}
