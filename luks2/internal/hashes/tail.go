package hashes

import (
	"bytes"
	"encoding/binary"
)

// Tail computes the hashes of many messages that end alike: some bytes that every
// one of them begins with, a whole number of blocks or nothing, are in a state
// already, and what follows has one length and fits into one block with its padding.
// It hands the hash function that whole block and takes the result out of the stored
// state, which saves what [hash.Hash.Sum] costs besides the block itself, and the
// copy of the state that it leaves on the stack.
type Tail struct {
	h     State
	block []byte // the message and its padding
	state []byte // room for a stored state
	n     int    // length of the message
	size  int    // of the hash
}

// TailRoom is how much memory [Func.NewTail] takes, for a block and the state of
// SHA-512, of 128 and 204 bytes.
const TailRoom = 384

// magicLength is what a state of crypto begins with; then come the words of the hash.
const magicLength = 4

// NewTail makes a Tail for messages of n bytes after whole blocks of before bytes.
// It works in room, which is the caller's to wipe, and in h, which has to be one of
// f's. It is nil for a hash function that does not work this way or whose library
// stores its state in another one, and for messages that are too long.
func (f Func) NewTail(h State, before, n int, room []byte) *Tail {
	size := h.BlockSize()
	switch f.Name {
	case "sha256", "sha512", "sha1":
	default:
		return nil
	}
	if before%size != 0 || n+1+size/8 > size {
		return nil
	}
	t := &Tail{h: h, block: room[:size:size], state: room[size:size:TailRoom], n: n, size: f.Size}
	clear(t.block)
	t.block[n] = 0x80
	if t.pad(0); !t.agrees() {
		return nil
	}
	t.pad(before)
	return t
}

// pad puts the number of bits at the end of the block.
func (t *Tail) pad(before int) {
	binary.BigEndian.PutUint64(t.block[len(t.block)-8:], uint64(before+t.n)*8)
}

// agrees compares one hash with what Sum says: how a state is stored is the
// library's own business.
func (t *Tail) agrees() bool {
	t.h.Reset()
	t.h.Write(t.Message())
	want := t.h.Sum(nil)
	return bytes.Equal(t.Sum(nil), want)
}

// Message is where the next message goes.
func (t *Tail) Message() []byte { return t.block[:t.n:t.n] }

// Sum is the hash of what the stored state has seen, nothing if it is nil, and the
// message. It stays until the next one.
func (t *Tail) Sum(state []byte) []byte {
	if state == nil {
		t.h.Reset()
	} else if err := t.h.UnmarshalBinary(state); err != nil {
		panic("hashes: a hash refuses its own state: " + err.Error())
	}
	t.h.Write(t.block)
	out, err := t.h.AppendBinary(t.state)
	if err != nil {
		panic("hashes: " + err.Error())
	}
	return out[magicLength : magicLength+t.size]
}
