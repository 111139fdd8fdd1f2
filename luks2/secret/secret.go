// Package secret keeps passphrases, PINs and keys in memory that is not
// printed, swapped, dumped or forgotten.
//
// A [Secret] is a small value that may be copied freely; all copies share one
// region of memory outside the Go heap. The region is locked (mlock) where the
// limits of the process allow it, left out of core dumps (MADV_DONTDUMP), not
// inherited by children (MADV_DONTFORK), and overwritten by [Secret.Wipe], which keeps
// it for another Secret or gives it back. No verb of fmt, no logger and no encoder
// shows its bytes: they see the text "[secret]", an address, or get an error.
//
// Ownership: whoever creates a Secret wipes it, usually with defer; parameters
// are borrowed for the call. After Wipe every copy is empty, so a late use finds
// no bytes rather than somebody else's.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrEncode is returned by every encoder that is handed a Secret.
var ErrEncode = errors.New("a secret cannot be encoded")

// ErrTooLong is returned by [Read] for input longer than its limit.
var ErrTooLong = errors.New("secret is longer than allowed")

// Secret holds sensitive bytes. The zero value is an empty secret. Copies share
// the bytes. A Secret may be read by several goroutines at once; Wipe must not
// run while another goroutine still uses the slice of [Secret.Bytes].
type Secret struct {
	// An unsafe.Pointer and not a *region: reflection follows typed pointers, so
	// that dumpers such as go-cmp and spew would print what they find behind it.
	p unsafe.Pointer // *region
}

// region is memory of the [pool]. It lives on the Go heap; the bytes do not.
type region struct {
	mu   sync.Mutex
	data []byte // length n; capacity is all of its pages; nil after Wipe
	stop runtime.Cleanup
}

// New returns a secret of n zero bytes, to be filled through [Secret.Bytes].
// It panics when n is negative or the kernel has no memory left, as make does.
func New(n int) Secret {
	if n < 0 {
		panic("secret: negative length")
	}
	if n == 0 {
		return Secret{}
	}
	page := unix.Getpagesize()
	size := (n + page - 1) / page * page
	m := memory.take(size)
	r := &region{data: m[:n:size]}
	r.stop = runtime.AddCleanup(r, memory.give, m)
	return Secret{unsafe.Pointer(r)}
}

// Copy returns a secret with a copy of b. The caller still owns b and should
// [Wipe] it if nothing else needs it; [Take] does both.
func Copy(b []byte) Secret {
	defer scrubRegisters()
	s := New(len(b))
	copy(s.Bytes(), b)
	return s
}

// Take moves b into a secret: the bytes are copied and b is overwritten.
func Take(b []byte) Secret {
	s := Copy(b)
	Wipe(b)
	return s
}

// Random returns n bytes of the kernel's random generator.
func Random(n int) Secret {
	s := New(n)
	rand.Read(s.Bytes()) // never fails, see crypto/rand
	return s
}

// Read reads r to its end straight into locked memory. More than limit bytes
// give [ErrTooLong]; errors of r are returned as they are. Nothing is kept then.
func Read(r io.Reader, limit int) (Secret, error) {
	buf := New(min(limit, 4095) + 1) // a page at most
	defer func() { buf.Wipe() }()
	n := 0
	for {
		if n == buf.Len() {
			if n > limit {
				return Secret{}, ErrTooLong
			}
			bigger := New(min(2*n, limit+1))
			copy(bigger.Bytes(), buf.Bytes())
			buf.Wipe()
			buf = bigger
		}
		k, err := r.Read(buf.Bytes()[n:])
		n += k
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Secret{}, err
		}
	}
	if n > limit {
		return Secret{}, ErrTooLong
	}
	return Copy(buf.Bytes()[:n]), nil
}

func (s Secret) region() *region { return (*region)(s.p) }

// Bytes returns the bytes themselves, not a copy. The slice is valid until Wipe
// and must not be kept beyond the Secret; nil for an empty secret.
func (s Secret) Bytes() []byte {
	r := s.region()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.data[:len(r.data):len(r.data)]
}

// Len is the number of bytes, 0 after Wipe.
func (s Secret) Len() int { return len(s.Bytes()) }

// Clone returns an independent copy, which its caller wipes.
func (s Secret) Clone() Secret { return Copy(s.Bytes()) }

// Equal reports whether both hold the same bytes, in time that depends on the
// lengths only.
func (s Secret) Equal(t Secret) bool {
	defer scrubRegisters()
	return subtle.ConstantTimeCompare(s.Bytes(), t.Bytes()) == 1
}

// Truncate shortens the secret to n bytes in place and overwrites the rest. It
// panics if n is larger than the length.
func (s Secret) Truncate(n int) {
	r := s.region()
	if r == nil {
		if n != 0 {
			panic("secret: truncating an empty secret")
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	Wipe(r.data[n:])
	r.data = r.data[:n]
}

// Wipe overwrites the bytes and leaves their memory to secrets to come. Every copy of
// the Secret is empty afterwards. Wiping twice, or the zero value, does nothing.
func (s Secret) Wipe() {
	r := s.region()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.data == nil {
		return
	}
	r.stop.Stop()
	memory.give(r.data[:cap(r.data)])
	r.data = nil
}

// Base64 returns the standard, padded base64 text of s as a new secret: the form
// in which systemd turns a token's key into a passphrase.
func Base64(s Secret) Secret {
	out := New(base64.StdEncoding.EncodedLen(s.Len()))
	base64.StdEncoding.Encode(out.Bytes(), s.Bytes())
	return out
}

// Wipe overwrites b with zeros. Unlike a loop or clear, the writes are not
// optimised away when b is dead afterwards.
func Wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(unsafe.SliceData(b))
}

// UnsafeString lends the bytes of s as a string without copying them, for library
// functions that take a password as string. It must not be used after Wipe.
func UnsafeString(s Secret) string {
	b := s.Bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Join returns the concatenation of its arguments as a new secret.
func Join(parts ...Secret) Secret {
	defer scrubRegisters()
	n := 0
	for _, p := range parts {
		n += p.Len()
	}
	out := New(n)
	dst := out.Bytes()
	for _, p := range parts {
		dst = dst[copy(dst, p.Bytes()):]
	}
	return out
}

const redacted = "[secret]"

// String keeps the bytes out of logs.
func (s Secret) String() string { return redacted }

// GoString keeps the bytes out of %#v.
func (s Secret) GoString() string { return redacted }

// Format answers every verb of fmt, %x and %s included, with the same text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON refuses.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, ErrEncode }

// MarshalText refuses; it also covers XML and the map keys of encoding/json.
func (s Secret) MarshalText() ([]byte, error) { return nil, ErrEncode }

// MarshalBinary refuses; it also covers encoding/gob.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, ErrEncode }

// WipeAll wipes every secret of a slice, for lists such as cached passphrases.
func WipeAll(list []Secret) {
	for _, s := range slices.Backward(list) {
		s.Wipe()
	}
}
