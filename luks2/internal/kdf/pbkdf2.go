// Package kdf computes PBKDF2, the key derivation function of digests and of some
// keyslots, without leaving passphrases or keys in the Go heap.
package kdf

import (
	"context"
	"encoding/binary"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// contextInterval is how many iterations pass between looks at the context: some
// milliseconds of work.
const contextInterval = 1 << 13

// PBKDF2 fills out with the key of RFC 8018 §5.2. It returns early with the
// error of ctx; out is then undefined.
//
// crypto/pbkdf2 is not used: it copies the passphrase into memory that nobody
// wipes, and cannot be interrupted while an untrusted header decides how long it
// runs.
func PBKDF2(ctx context.Context, f hashes.Func, passphrase, salt []byte, iterations int, out []byte) (err error) {
	secret.Do(func() { err = derive(ctx, f, passphrase, salt, iterations, out) })
	return err
}

func derive(ctx context.Context, f hashes.Func, passphrase, salt []byte, iterations int, out []byte) error {
	m := newHMAC(f, passphrase)
	defer m.wipe()
	m.tail = f.NewTail(m.h, m.h.BlockSize(), f.Size, m.room)
	work := secret.New(2 * f.Size)
	defer work.Wipe()
	u, sum := work.Bytes()[:f.Size], work.Bytes()[f.Size:]
	var index [4]byte
	for block := uint32(1); len(out) > 0; block++ {
		binary.BigEndian.PutUint32(index[:], block)
		m.sum(u, salt, index[:])
		copy(sum, u)
		for i := 1; i < iterations; i++ {
			if i%contextInterval == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			m.again(u)
			xorInto(sum, u)
		}
		out = out[copy(out, sum):]
	}
	return nil
}

func xorInto(dst, src []byte) {
	for len(dst) >= 8 {
		binary.NativeEndian.PutUint64(dst, binary.NativeEndian.Uint64(dst)^binary.NativeEndian.Uint64(src))
		dst, src = dst[8:], src[8:]
	}
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// hmac is HMAC with a fixed key, whose two keyed states are kept in a Secret
// instead of the key. crypto/hmac holds the padded key in heap memory out of
// reach.
type hmac struct {
	h            hashes.State
	states       secret.Secret
	inner, outer []byte // stored states, inside states
	digest       []byte // of the inner hash, inside states
	tail         *hashes.Tail
	room         []byte // of the tail, inside states
}

// stateRoom is enough for the stored state of every hash in the table; BLAKE2b's is
// the longest, of 360 bytes.
const stateRoom = 384

func newHMAC(f hashes.Func, key []byte) *hmac {
	m := &hmac{h: f.New(), states: secret.New(2*stateRoom + f.Size + hashes.TailRoom)}
	b := m.states.Bytes()
	m.digest, m.room = b[2*stateRoom:2*stateRoom+f.Size], b[2*stateRoom+f.Size:]
	size := m.h.BlockSize()
	pad := secret.New(size)
	defer pad.Wipe()
	if len(key) > size {
		m.h.Write(key)
		m.h.Sum(pad.Bytes()[:0])
	} else {
		copy(pad.Bytes(), key)
	}
	m.inner = m.keyed(pad.Bytes(), 0x36, b[:0:stateRoom])
	m.outer = m.keyed(pad.Bytes(), 0x36^0x5c, b[stateRoom:stateRoom:2*stateRoom])
	return m
}

// keyed stores in dst the state after the pad, each byte changed by mask.
func (m *hmac) keyed(pad []byte, mask byte, dst []byte) []byte {
	for i := range pad {
		pad[i] ^= mask
	}
	m.h.Reset()
	m.h.Write(pad)
	state, err := m.h.AppendBinary(dst)
	if err != nil || cap(state) != cap(dst) {
		panic("kdf: the state of a hash is longer than its room")
	}
	return state
}

func (m *hmac) load(state []byte) {
	if err := m.h.UnmarshalBinary(state); err != nil {
		panic("kdf: a hash refuses its own state: " + err.Error())
	}
}

// sum puts the MAC of a and b, one after the other, into dst.
func (m *hmac) sum(dst, a, b []byte) {
	m.load(m.inner)
	m.h.Write(a)
	m.h.Write(b)
	m.h.Sum(m.digest[:0])
	m.load(m.outer)
	m.h.Write(m.digest)
	m.h.Sum(dst[:0])
}

// again replaces a MAC by the MAC of itself.
func (m *hmac) again(mac []byte) {
	if m.tail == nil {
		m.sum(mac, mac, nil)
		return
	}
	copy(m.tail.Message(), mac)
	copy(m.tail.Message(), m.tail.Sum(m.inner))
	copy(mac, m.tail.Sum(m.outer))
}

func (m *hmac) wipe() {
	hashes.Forget(m.h)
	m.states.Wipe()
}
