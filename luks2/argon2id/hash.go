package argon2id

import (
	"encoding/binary"

	"golang.org/x/crypto/blake2b"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

const (
	version  = 0x13 // RFC 9106 §3.1 v
	seedSize = blake2b.Size
)

// seed puts H_0 into dst (RFC 9106 §3.2 step 1). Its input is put together in a
// Secret and hashed at once, so that the passphrase does not get into the state of
// a hash, which would be on the heap.
func (p *Params) seed(dst, passphrase []byte, outLen int) {
	texts := [...][]byte{passphrase, p.Salt, p.key, p.data}
	size := 6 * 4
	for _, t := range texts {
		size += 4 + len(t)
	}
	input := secret.New(size)
	defer input.Wipe()
	b := input.Bytes()[:0]
	for _, n := range [...]uint32{uint32(p.Lanes), uint32(outLen), uint32(p.MemoryKiB), uint32(p.Time), version, p.kind()} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, t := range texts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
		b = append(b, t...)
	}
	sum(dst, b)
}

// longHash is H' (RFC 9106 §3.3). room is for its input, with the length before
// it: at least 64 bytes.
func longHash(dst, input []byte, room []byte) {
	b := binary.LittleEndian.AppendUint32(room[:0], uint32(len(dst)))
	b = append(b, input...)
	if len(dst) <= blake2b.Size {
		sum(dst, b)
		return
	}
	v := room[:blake2b.Size]
	sum(v, b)
	for len(dst) > blake2b.Size {
		dst = dst[copy(dst, v[:blake2b.Size/2]):]
		if len(dst) > blake2b.Size {
			sum(v, v)
		}
	}
	sum(dst, v)
}

// sum puts the BLAKE2b hash of src, as long as dst, into dst; they may overlap.
func sum(dst, src []byte) {
	if len(dst) == blake2b.Size {
		full := blake2b.Sum512(src) // on the stack, which secret.Do clears
		copy(dst, full[:])
		return
	}
	h, err := blake2b.New(len(dst), nil)
	if err != nil {
		panic("argon2id: " + err.Error()) // the caller keeps to 1..64 bytes
	}
	defer hashes.Forget(h)
	h.Write(src)
	h.Sum(dst[:0])
}
