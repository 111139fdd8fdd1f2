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

var table = [...]Func{
	{"sha1", sha1.Size, sha1.New},
	{"sha224", sha256.Size224, sha256.New224},
	{"sha256", sha256.Size, sha256.New},
	{"sha384", sha512.Size384, sha512.New384},
	{"sha512", sha512.Size, sha512.New},
	{"sha3-224", 28, func() hash.Hash { return sha3.New224() }},
	{"sha3-256", 32, func() hash.Hash { return sha3.New256() }},
	{"sha3-384", 48, func() hash.Hash { return sha3.New384() }},
	{"sha3-512", 64, func() hash.Hash { return sha3.New512() }},
}

// ByName finds a hash function; it reports false for one that cannot be computed
// here. cryptsetup writes a name as the user typed it (`luksFormat --hash SHA-512`),
// and OpenSSL, with which distributions build it, knows these spellings.
func ByName(name string) (Func, bool) {
	for _, f := range table {
		if strings.EqualFold(name, f.Name) || strings.EqualFold(name, dashed(f.Name)) {
			return f, true
		}
	}
	return Func{}, false
}

// dashed is the other spelling of a name: sha-256 for sha256.
func dashed(name string) string { return "sha-" + strings.TrimPrefix(name, "sha") }

// New returns a fresh state.
func (f Func) New() State { return f.make().(State) }

// Forget overwrites what a hash, block cipher or similar object of the standard
// library keeps in its own struct, such as the last partial block of its input or
// a key schedule. The object must not be used afterwards.
func Forget(pointer any) {
	if v := reflect.ValueOf(pointer); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}
