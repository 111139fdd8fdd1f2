package hashes

import (
	"bytes"
	"reflect"
	"testing"
)

// TestATailEqualsSum with nothing and with blocks before the message.
func TestATailEqualsSum(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512"} {
		f, _ := ByName(name)
		reference := f.New()
		size := reference.BlockSize()
		for _, before := range []int{0, size, 3 * size} {
			for _, n := range []int{0, 1, f.Size, size - 1 - size/8} {
				tail := f.NewTail(before, n, bytes.Repeat([]byte{0xee}, TailRoom))
				if tail == nil {
					t.Fatalf("%s, %d after %d bytes: none", name, n, before)
				}
				first, message := bytes.Repeat([]byte{1}, before), bytes.Repeat([]byte{2}, n)
				reference.Reset()
				reference.Write(first)
				state, _ := reference.AppendBinary(nil)
				reference.Write(message)
				want := reference.Sum(nil)
				words := tail.Words(nil, state)
				for range 2 {
					copy(tail.Message(), message)
					if got := tail.Sum(words); !bytes.Equal(got, want) {
						t.Errorf("%s, %d after %d bytes: %x instead of %x", name, n, before, got, want)
					}
				}
				if got := tail.Sum(nil); before == 0 && !bytes.Equal(got, want) {
					t.Errorf("%s, %d bytes: %x instead of %x", name, n, got, want)
				}
			}
		}
	}
}

func TestNoTailForWhatItCannotDo(t *testing.T) {
	for i := range table {
		f, _ := ByName(table[i].name())
		size, room := f.New().BlockSize(), make([]byte, TailRoom)
		known := f.Name == "sha1" || f.Name == "sha256" || f.Name == "sha512"
		if got := f.NewTail(0, 4, room) != nil; got != known {
			t.Errorf("%s: %v", f.Name, got)
		}
		if known && (f.NewTail(1, 4, room) != nil || f.NewTail(0, size-size/8, room) != nil) {
			t.Errorf("%s: a tail after half a block, or of more than one", f.Name)
		}
	}
}

// another keeps its state elsewhere than at the beginning.
type another struct {
	_ [64]byte
	State
}

func TestNoTailWhenTheStateIsElsewhere(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512"} {
		f, _ := ByName(name)
		if f.newTail(&another{State: f.New()}, 0, 4, make([]byte, TailRoom)) != nil {
			t.Errorf("%s: a tail that gives wrong hashes", name)
		}
	}
}

func TestATailForgets(t *testing.T) {
	f, _ := ByName("sha512")
	tail := f.NewTail(0, 4, make([]byte, TailRoom))
	tail.Sum(nil)
	tail.Forget()
	if !reflect.ValueOf(tail.h).Elem().IsZero() {
		t.Error("the state is still there")
	}
	(*Tail)(nil).Forget() // of a hash that has none
}
