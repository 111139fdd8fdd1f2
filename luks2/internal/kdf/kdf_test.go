package kdf

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"errors"
	"hash"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jzelinskie/whirlpool"
	"golang.org/x/crypto/blake2b"
	//lint:ignore SA1019 volumes that use it have to be opened
	"golang.org/x/crypto/ripemd160"

	"luksmith/luks2/internal/hashes"
)

// TestPBKDF2EqualsTheLibrary compares with crypto/pbkdf2, over passphrases around
// the block sizes.
func TestPBKDF2EqualsTheLibrary(t *testing.T) {
	for name, h := range map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
		"sha3-512": func() hash.Hash { return sha3.New512() }, "sha3-256": func() hash.Hash { return sha3.New256() },
		"whirlpool": whirlpool.New, "ripemd160": ripemd160.New, "sm3": func() hash.Hash { f, _ := hashes.ByName("sm3"); return f.New() },
		"blake2b-512": func() hash.Hash { h, _ := blake2b.New512(nil); return h }} {
		for _, length := range []int{0, 1, 63, 64, 65, 128, 129, 512} {
			for _, size := range []int{20, 32, 64, 100} {
				passphrase, salt := strings.Repeat("p", length), bytes.Repeat([]byte{7}, 32)
				want, err := pbkdf2.Key(h, passphrase, salt, 3, size)
				if err != nil {
					t.Fatal(err)
				}
				f, _ := hashes.ByName(name)
				got := make([]byte, size)
				if err := PBKDF2(t.Context(), f, []byte(passphrase), salt, 3, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, passphrase of %d bytes, key of %d: %v, %x instead of %x", name, length, size, err, got, want)
				}
			}
		}
	}
}

// TestIterationsAllocateNothing: what they allocate would keep keyed states.
func TestIterationsAllocateNothing(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512"} {
		f, _ := hashes.ByName(name)
		out := make([]byte, f.Size)
		allocations := func(iterations int) float64 {
			return testing.AllocsPerRun(20, func() { _ = PBKDF2(t.Context(), f, []byte("p"), make([]byte, 32), iterations, out) })
		}
		if few, many := allocations(2), allocations(2000); many > few+1 { // the collector may run
			t.Errorf("%s: %v allocations for 2000 iterations, %v for 2", name, many, few)
		}
	}
}

func TestACancelledContextEndsPBKDF2(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f, _ := hashes.ByName("sha512")
	start := time.Now()
	err := PBKDF2(ctx, f, []byte("p"), make([]byte, 32), 1<<30, make([]byte, 64))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func BenchmarkPBKDF2(b *testing.B) {
	for _, name := range []string{"sha256", "sha512"} {
		b.Run(name+"-1000", func(b *testing.B) {
			f, _ := hashes.ByName(name)
			out := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				_ = PBKDF2(context.Background(), f, []byte("hunter2"), make([]byte, 32), 1000, out)
			}
		})
		b.Run(name+"-1000-library", func(b *testing.B) {
			h := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}[name]
			b.ReportAllocs()
			for b.Loop() {
				_, _ = pbkdf2.Key(h, "hunter2", make([]byte, 32), 1000, 64)
			}
		})
	}
}

// TestTheHashForgetsItsState: it holds the last of what went through it.
func TestTheHashForgetsItsState(t *testing.T) {
	for _, name := range []string{"sha1", "sha256", "sha512", "sha3-512"} {
		f, _ := hashes.ByName(name)
		m := newHMAC(f, []byte("key"))
		m.sum(make([]byte, f.Size), []byte("message"), nil)
		m.wipe()
		if m.states.Len() > 0 {
			t.Errorf("%s: the keyed states are still there", name)
		}
		if !reflect.ValueOf(m.h).Elem().IsZero() { // those of other libraries: see package hashes
			t.Errorf("%s: the state is still there", name)
		}
	}
}
