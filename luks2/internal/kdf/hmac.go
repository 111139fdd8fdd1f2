package kdf

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/binary"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// hmac is HMAC with a fixed key, whose two keyed states are kept in a Secret
// instead of the key. crypto/hmac holds the padded key in heap memory out of
// reach.
type hmac struct {
	h            hashes.State
	states       secret.Secret
	inner, outer []byte // stored states, inside states
	digest       []byte // of the inner hash, inside states
	tail         *hashes.Tail
	tailInner    []byte // the keyed states as the tail takes them, inside states
	tailOuter    []byte
}

// stateRoom is enough for the stored state of every hash in the table; BLAKE2b's is
// the longest, of 360 bytes.
const stateRoom = 384

func newHMAC(f hashes.Func, key []byte) *hmac {
	m := &hmac{h: f.New(), states: secret.New(2*stateRoom + f.Size + hashes.TailRoom + 2*hashes.WordsRoom)}
	b := m.states.Bytes()
	m.digest = b[2*stateRoom : 2*stateRoom+f.Size]
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

// repeat prepares for many calls of again, where the hash allows that.
func (m *hmac) repeat(f hashes.Func) {
	b := m.states.Bytes()[2*stateRoom+f.Size:]
	room, inner, outer := b[:hashes.TailRoom], b[hashes.TailRoom:hashes.TailRoom+hashes.WordsRoom], b[hashes.TailRoom+hashes.WordsRoom:]
	if m.tail = f.NewTail(m.h.BlockSize(), f.Size, room); m.tail != nil {
		m.tailInner, m.tailOuter = m.tail.Words(inner[:0], m.inner), m.tail.Words(outer[:0], m.outer)
	}
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
	copy(m.tail.Message(), m.tail.Sum(m.tailInner))
	copy(mac, m.tail.Sum(m.tailOuter))
}

func (m *hmac) wipe() {
	hashes.Forget(m.h)
	m.tail.Forget()
	m.states.Wipe()
}

// contextInterval is how many iterations pass between looks at the context: some
// milliseconds of work.
const contextInterval = 1 << 13

// block fills the beginning of out with a block of PBKDF2, numbered from 1, and returns
// the rest: the exclusive or of a chain of MACs (RFC 8018 §5.2, F).
func (m *hmac) block(ctx context.Context, out, salt []byte, number uint32, iterations int) (rest []byte, err error) {
	size := len(m.digest)
	work := secret.New(2 * size)
	defer work.Wipe()
	u, sum := work.Bytes()[:size], work.Bytes()[size:]
	m.sum(u, salt, binary.BigEndian.AppendUint32(nil, number))
	copy(sum, u)
	for i := 1; i < iterations; i++ {
		if i%contextInterval == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		m.again(u)
		subtle.XORBytes(sum, sum, u)
	}
	return out[copy(out, sum):], nil
}

// once puts the HMAC of one message into dst.
func once(f hashes.Func, dst []byte, key, message []byte) {
	m := newHMAC(f, key)
	defer m.wipe()
	m.sum(dst, message, nil)
}

// HMAC is the MAC of the parts, one after the other, with the hash of that name,
// which must be one of the table's. The key is borrowed.
func HMAC(name string, key secret.Secret, parts ...[]byte) []byte {
	f, ok := hashes.ByName(name)
	if !ok {
		panic("kdf: no hash " + name)
	}
	sum := make([]byte, f.Size)
	secret.Do(func() { once(f, sum, key.Bytes(), bytes.Join(parts, nil)) })
	return sum
}
