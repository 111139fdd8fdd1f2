package hashes

import (
	"bytes"
	"testing"
)

// TestATailEqualsSum with nothing and with blocks before the message.
func TestATailEqualsSum(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512"} {
		f, _ := ByName(name)
		h, reference := f.New(), f.New()
		size := h.BlockSize()
		for _, before := range []int{0, size, 3 * size} {
			for _, n := range []int{0, 1, f.Size, size - 1 - size/8} {
				tail := f.NewTail(h, before, n, bytes.Repeat([]byte{0xee}, TailRoom))
				if tail == nil {
					t.Fatalf("%s, %d after %d bytes: none", name, n, before)
				}
				first, message := bytes.Repeat([]byte{1}, before), bytes.Repeat([]byte{2}, n)
				reference.Reset()
				reference.Write(first)
				state, _ := reference.AppendBinary(nil)
				reference.Write(message)
				want := reference.Sum(nil)
				for range 2 {
					copy(tail.Message(), message)
					if got := tail.Sum(state); !bytes.Equal(got, want) {
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
		h, room := f.New(), make([]byte, TailRoom)
		known := f.Name == "sha1" || f.Name == "sha256" || f.Name == "sha512"
		if got := f.NewTail(h, 0, 4, room) != nil; got != known {
			t.Errorf("%s: %v", f.Name, got)
		}
		if known && (f.NewTail(h, 1, 4, room) != nil || f.NewTail(h, 0, h.BlockSize()-h.BlockSize()/8, room) != nil) {
			t.Errorf("%s: a tail after half a block, or of more than one", f.Name)
		}
	}
}

// another stores its state in a format of its own.
type another struct{ State }

func (a another) AppendBinary(b []byte) ([]byte, error) {
	b, err := a.State.AppendBinary(append(b, 0))
	return b, err
}

func TestNoTailWhenTheStateIsStoredInAnotherWay(t *testing.T) {
	f, _ := ByName("sha256")
	if f.NewTail(another{f.New()}, 0, 4, make([]byte, TailRoom)) != nil {
		t.Error("a tail that gives wrong hashes")
	}
}
