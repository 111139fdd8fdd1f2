package hashes

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"unsafe"
)

// Tail computes the hashes of many messages that end alike: some bytes that every
// one of them begins with, a whole number of blocks or nothing, are in a state
// already, and what follows has one length and fits into one block with its padding.
// It hands the hash function that whole block, and sets and reads the words of its
// state in the library's struct. That saves what [hash.Hash.Sum] costs besides the block
// itself, as much as a block where the processor has instructions for SHA-256, and the
// copy of the state that it leaves on the stack.
type Tail struct {
	h     State  // its own: in between it holds no part of a block
	words []byte // of the state, inside h
	wide  bool   // they are of 8 bytes, not 4
	fresh []byte // words of a hash that has seen nothing
	block []byte // the message and its padding
	sum   []byte
	n     int // length of the message
}

const (
	// TailRoom is how much memory [Func.NewTail] takes, for a block and two states.
	TailRoom = 128 + 2*WordsRoom
	// WordsRoom is that of the longest state, of SHA-512.
	WordsRoom = 64
)

// NewTail makes a Tail for messages of n bytes after whole blocks of before bytes.
// It works in room, which is the caller's to wipe. It is nil for a hash function that
// does not work this way or whose library keeps its state elsewhere than at the
// beginning of a struct, and for messages that are too long.
func (f Func) NewTail(before, n int, room []byte) *Tail {
	switch f.Name {
	case "sha256", "sha512", "sha1":
		return f.newTail(f.New(), before, n, room)
	}
	return nil
}

func (f Func) newTail(h State, before, n int, room []byte) *Tail {
	size, v := h.BlockSize(), reflect.ValueOf(h)
	if before%size != 0 || n+1+size/8 > size || v.Kind() != reflect.Pointer || v.Type().Elem().Size() < WordsRoom {
		return nil
	}
	t := &Tail{h: h, words: unsafe.Slice((*byte)(v.UnsafePointer()), f.Size), wide: size == 128, n: n}
	t.block, t.sum, t.fresh = room[:size:size], room[size:size+f.Size], room[size+WordsRoom:size+WordsRoom+f.Size]
	clear(t.block)
	t.block[n] = 0x80
	copy(t.fresh, t.words)
	if t.pad(0); !t.agrees() {
		return nil
	}
	t.pad(before)
	return t
}

// Forget overwrites the state, but not the room.
func (t *Tail) Forget() {
	if t != nil {
		Forget(t.h)
	}
}

// pad puts the number of bits at the end of the block.
func (t *Tail) pad(before int) {
	binary.BigEndian.PutUint64(t.block[len(t.block)-8:], uint64(before+t.n)*8)
}

// agrees compares two hashes, one after the other, with what Sum says: where a state is
// kept is the library's own business.
func (t *Tail) agrees() bool {
	t.h.Write(t.Message())
	want := t.h.Sum(nil)
	t.h.Reset() // without the message, which is no whole block
	for range 2 {
		if !bytes.Equal(t.Sum(nil), want) {
			return false
		}
	}
	return true
}

// Words adds the words of a stored state, of whole blocks, to dst.
func (t *Tail) Words(dst, state []byte) []byte {
	if err := t.h.UnmarshalBinary(state); err != nil {
		panic("hashes: a hash refuses its own state: " + err.Error())
	}
	return append(dst, t.words...)
}

// Message is where the next message goes.
func (t *Tail) Message() []byte { return t.block[:t.n:t.n] }

// Sum is the hash of what a state has seen of which these are the words, nothing if
// there are none, and the message. It stays until the next one.
func (t *Tail) Sum(words []byte) []byte {
	if words == nil {
		words = t.fresh
	}
	copy(t.words, words)
	t.h.Write(t.block)
	// Eight words each: what follows those of SHA-1 belongs to its struct, too.
	at, to := unsafe.Pointer(&t.words[0]), unsafe.Pointer(&t.sum[0])
	if t.wide {
		for i, w := range (*[8]uint64)(at) {
			binary.BigEndian.PutUint64((*[8][8]byte)(to)[i][:], w)
		}
	} else {
		for i, w := range (*[8]uint32)(at) {
			binary.BigEndian.PutUint32((*[8][4]byte)(to)[i][:], w)
		}
	}
	return t.sum
}
