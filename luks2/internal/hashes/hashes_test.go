package hashes

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// TestKnownAnswers has the published results for "abc", or OpenSSL's.
func TestKnownAnswers(t *testing.T) {
	for name, want := range map[string]string{
		"sha1":        "a9993e364706816aba3e25717850c26c9cd0d89d",
		"sha224":      "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
		"sha256":      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha512-256":  "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
		"sha3-256":    "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
		"ripemd160":   "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
		"whirlpool":   "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c7181eebdb6c57e277d0e34957114cbd6c797fc9d95d8b582d225292076d4eef5",
		"blake2b-512": "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
		"blake2s-256": "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
		"blake2s-224": "0b033fc226df7abde29f67a05d3dc62cf271ef3dfea4d387407fbd55",
		"blake2s-160": "5ae3b99be29b01834c3b508521ede60438f8de17",
		"blake2s-128": "aa4938119b1dc7b87cbad0ffd200d0ae",
		"sm3":         "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
	} {
		f, ok := ByName(name)
		if !ok || f.Name != name {
			t.Fatalf("%s: %v %q", name, ok, f.Name)
		}
		h := f.New()
		h.Write([]byte("abc"))
		if got := hex.EncodeToString(h.Sum(nil)); got != want || f.Size != len(want)/2 {
			t.Errorf("%s: %s, size %d", name, got, f.Size)
		}
	}
}

// TestEverySpellingOfAHash has what OpenSSL, gcrypt and the kernel take.
func TestEverySpellingOfAHash(t *testing.T) {
	for name, want := range map[string]string{
		"SHA-512": "sha512", "Sha2-256": "sha256", "sha512-224": "sha512-224", "SHA2-512/256": "sha512-256", "RIPEMD-160": "ripemd160",
		"rmd160": "ripemd160", "ripemd": "ripemd160", "wp512": "whirlpool", "WHIRLPOOL": "whirlpool", "BLAKE2b512": "blake2b-512", "blake2s256": "blake2s-256",
	} {
		if f, ok := ByName(name); !ok || f.Name != want {
			t.Errorf("%s: %v %s", name, ok, f.Name)
		}
	}
	for _, name := range []string{"", " ", "sha256 sha-256", "md5", "streebog512", "sha3", "crc32", "blake2"} {
		if f, ok := ByName(name); ok {
			t.Errorf("%q is %s", name, f.Name)
		}
	}
}

// TestAStateCanBeStored for every hash, at places around the ends of a block.
func TestAStateCanBeStored(t *testing.T) {
	message := []byte(strings.Repeat("luks", 100))
	for i := range table {
		f, _ := ByName(table[i].name())
		t.Run(f.Name, func(t *testing.T) {
			for _, n := range []int{0, 1, 63, 64, 127, 128, 129, 300} {
				h := f.New()
				h.Write(message[:n])
				state, err := h.AppendBinary([]byte("before"))
				if err != nil {
					t.Fatal(err)
				}
				h.Write(message[n:])
				want := h.Sum(nil)
				again := f.New()
				again.Write([]byte("something else"))
				if err := again.UnmarshalBinary(state[len("before"):]); err != nil {
					t.Fatal(err)
				}
				again.Write(message[n:])
				if got := again.Sum(nil); !bytes.Equal(got, want) || len(got) != f.Size {
					t.Errorf("state after %d bytes: %x instead of %x", n, got, want)
				}
			}
		})
	}
}

// TestStatesAreCopiedWhole: the bytes of a struct are its state only while there are
// no pointers in it.
func TestStatesAreCopiedWhole(t *testing.T) {
	copies := 0
	for i := range table {
		c, ok := newState(t, i).(*copied)
		if !ok {
			continue
		}
		copies++
		if kind := reflect.TypeOf(c.Hash).Elem(); !plain(kind) {
			t.Errorf("%s: %v has pointers", table[i].name(), kind)
		}
		if err := c.UnmarshalBinary(make([]byte, len(c.state)-1)); err == nil {
			t.Errorf("%s takes a state that is too short", table[i].name())
		}
	}
	if copies == 0 {
		t.Error("no hash is copied: the type can go")
	}
}

func newState(t *testing.T, row int) State {
	t.Helper()
	f, _ := ByName(table[row].name())
	return f.New()
}

// plain reports whether a type is made of numbers alone.
func plain(kind reflect.Type) bool {
	switch kind.Kind() {
	case reflect.Struct:
		for field := range kind.NumField() {
			if !plain(kind.Field(field).Type) {
				return false
			}
		}
		return true
	case reflect.Array:
		return plain(kind.Elem())
	}
	return kind.Kind() >= reflect.Bool && kind.Kind() <= reflect.Complex128
}

// TestForgetReachesTheLibrarysStruct behind the adapter.
func TestForgetReachesTheLibrarysStruct(t *testing.T) {
	for i := range table {
		h := newState(t, i)
		h.Write([]byte("secret"))
		inner := reflect.ValueOf(h)
		if c, ok := h.(*copied); ok {
			inner = reflect.ValueOf(c.Hash)
		}
		Forget(h)
		if !inner.Elem().IsZero() {
			t.Errorf("%s: the state is still there", table[i].name())
		}
	}
}
