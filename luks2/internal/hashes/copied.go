package hashes

import (
	"errors"
	"hash"
	"reflect"
	"unsafe"
)

// copied makes a [State] of a hash whose library cannot store the state, or leaves a
// copy of it on the heap. All of them are one struct without pointers, which a test
// checks, so its bytes are the state.
type copied struct {
	hash.Hash
	state []byte // the struct behind Hash
}

func newCopied(h hash.Hash) *copied {
	v := reflect.ValueOf(h)
	return &copied{h, unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size())}
}

// AppendBinary stores the state, which [copied.UnmarshalBinary] of the same process
// reads.
func (c *copied) AppendBinary(b []byte) ([]byte, error) { return append(b, c.state...), nil }

// UnmarshalBinary goes back to a state that was stored.
func (c *copied) UnmarshalBinary(state []byte) error {
	if len(state) != len(c.state) {
		return errors.New("state of another hash")
	}
	copy(c.state, state)
	return nil
}

// forget overwrites the library's struct.
func (c *copied) forget() { clear(c.state) }
