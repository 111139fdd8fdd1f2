package kdf

import (
	"context"
	"runtime"
	"runtime/debug"

	"golang.org/x/crypto/argon2"

	"luksmith/luks2/secret"
)

// Argon2 says how to run Argon2 version 1.3. Its caller has checked that the
// costs are affordable and within the range of the algorithm.
type Argon2 struct {
	Independent bool // Argon2i, which serves old volumes; else Argon2id
	Salt        []byte
	Time        int // passes
	MemoryKiB   int // at least 8 for each lane
	Lanes       int // 1..255
	// Finished, if not nil, is called when the memory is free again, which may be
	// after Key has returned.
	Finished func()
}

// Key fills out with the key of RFC 9106. When ctx ends it returns at once; the
// computation cannot be interrupted and runs to its end on its own copy of the
// passphrase, which it then wipes.
func (a Argon2) Key(ctx context.Context, passphrase, out secret.Secret) error {
	own, key := passphrase.Clone(), secret.New(out.Len())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer own.Wipe()
		secret.Do(func() { a.compute(own, key) })
		// The library leaves the memory, up to gigabytes, and a block with the
		// passphrase to the garbage collector. Both go back to the kernel now, so
		// that a second try does not double the size of the process.
		debug.FreeOSMemory()
		overwriteFreed()
		if a.Finished != nil {
			a.Finished()
		}
	}()
	select {
	case <-done:
		secret.Do(func() { copy(out.Bytes(), key.Bytes()) })
		key.Wipe()
		return nil
	case <-ctx.Done():
		go func() {
			<-done
			key.Wipe()
		}()
		return context.Cause(ctx)
	}
}

func (a Argon2) compute(passphrase, key secret.Secret) {
	variant := argon2.IDKey
	if a.Independent {
		variant = argon2.Key
	}
	b := variant(passphrase.Bytes(), a.Salt, uint32(a.Time), uint32(a.MemoryKiB), uint8(a.Lanes), uint32(key.Len()))
	copy(key.Bytes(), b)
	secret.Wipe(b)
}

// overwriteFreed lets new objects, which are zero, take the places of what the
// library allocated for its BLAKE2b states: the collector has freed them, but a
// block with the passphrase is still there.
func overwriteFreed() {
	const (
		stateSize = 360
		enough    = 1 << 10 // objects: more than a small heap has places for
	)
	kept := make([]*[stateSize]byte, enough)
	for i := range kept {
		kept[i] = new([stateSize]byte)
	}
	runtime.KeepAlive(kept)
}
