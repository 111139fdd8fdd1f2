// Package hashes is the table of the hash functions that occur in LUKS2 headers
// and are computed here.
package hashes

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding"
	"hash"
	"reflect"
	"strings"

	"github.com/emmansun/gmsm/sm3"
	"github.com/jzelinskie/whirlpool"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
	//lint:ignore SA1019 volumes that use it have to be opened
	"golang.org/x/crypto/ripemd160"
)

// Func is a hash function under the name that cryptsetup uses.
type Func struct {
	Name string
	Size int // bytes of the result
	make func() hash.Hash
}

// State is a hash whose state can be stored, as all of the table's.
type State interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryUnmarshaler
}

// row is a hash function with all its names. cryptsetup writes a name as the user
// typed it (`luksFormat --hash SHA-512`), and the libraries that distributions build
// it with, OpenSSL, gcrypt or the kernel, know these spellings.
type row struct {
	names string // in lower case, the usual one first
	size  int
	make  func() hash.Hash
}

// Streebog is not in the table: the libraries for it are under licences that do not
// fit, and cryptsetup with OpenSSL does not compute it either.
var table = [...]row{
	{"sha256 sha-256 sha2-256", sha256.Size, sha256.New},
	{"sha512 sha-512 sha2-512", sha512.Size, sha512.New},
	{"sha1 sha-1 ssl3-sha1", sha1.Size, sha1.New},
	{"sha224 sha-224 sha2-224", sha256.Size224, sha256.New224},
	{"sha384 sha-384 sha2-384", sha512.Size384, sha512.New384},
	{"sha512-224 sha-512/224 sha2-512/224", sha512.Size224, sha512.New512_224},
	{"sha512-256 sha-512/256 sha2-512/256", sha512.Size256, sha512.New512_256},
	{"sha3-224", 28, func() hash.Hash { return sha3.New224() }},
	{"sha3-256", 32, func() hash.Hash { return sha3.New256() }},
	{"sha3-384", 48, func() hash.Hash { return sha3.New384() }},
	{"sha3-512", 64, func() hash.Hash { return sha3.New512() }},
	{"ripemd160 ripemd-160 rmd160 ripemd", ripemd160.Size, ripemd160.New},
	{"whirlpool wp512", whirlpoolSize, whirlpool.New},
	{"blake2b-512 blake2b512", 64, func() hash.Hash { return newBlake2b(64) }},
	{"blake2b-384", 48, func() hash.Hash { return newBlake2b(48) }},
	{"blake2b-256", 32, func() hash.Hash { return newBlake2b(32) }},
	{"blake2b-160", 20, func() hash.Hash { return newBlake2b(20) }},
	{"blake2s-256 blake2s256", blake2s.Size, func() hash.Hash { h, _ := blake2s.New256(nil); return h }}, // fails for long keys only
	{"blake2s-224", 28, func() hash.Hash { return newBlake2s(28) }},
	{"blake2s-160", 20, func() hash.Hash { return newBlake2s(20) }},
	{"blake2s-128", 16, func() hash.Hash { return newBlake2s(16) }},
	{"sm3", sm3.Size, newSM3},
}

// whirlpoolSize is ISO/IEC 10118-3's; the package does not export it.
const whirlpoolSize = 64

func newBlake2b(size int) hash.Hash {
	h, _ := blake2b.New(size, nil) // fails for other sizes and long keys only
	return h
}

// newBlake2s makes the sizes that the package has for long input only. The size is a part
// of the state, and of its first word from the beginning (RFC 7693 §2.5).
func newBlake2s(size byte) hash.Hash {
	const magic = "b2s"
	const lowest, sizeByte = len(magic) + 3, len(magic) + 8*4 + 2*4 // of the first word, which is big-endian
	h, _ := blake2s.New256(nil)
	state, _ := h.(encoding.BinaryMarshaler).MarshalBinary()
	state[lowest] ^= blake2s.Size ^ size
	state[sizeByte] = size
	_ = h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state) // the vectors show that it is taken
	return h
}

// ByName finds a hash function; it reports false for one that cannot be computed
// here.
func ByName(name string) (Func, bool) {
	for i := range table {
		if r := &table[i]; r.has(name) {
			return Func{r.name(), r.size, r.make}, true
		}
	}
	return Func{}, false
}

// has reports whether the function goes by that name, in any case.
func (r *row) has(name string) bool {
	for known := range strings.FieldsSeq(r.names) {
		if strings.EqualFold(name, known) {
			return true
		}
	}
	return false
}

// name is the usual one.
func (r *row) name() string {
	name, _, _ := strings.Cut(r.names, " ")
	return name
}

// New returns a fresh state.
func (f Func) New() State {
	h := f.make()
	if s, ok := h.(State); ok {
		return s
	}
	return newCopied(h)
}

// Forget overwrites what a hash, block cipher or similar object of the standard
// library keeps in its own struct, such as the last partial block of its input or
// a key schedule. The object must not be used afterwards.
func Forget(pointer any) {
	if c, ok := pointer.(*copied); ok {
		c.forget()
	}
	if v := reflect.ValueOf(pointer); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}
