package kdf

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strings"
	"testing"
	"time"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// TestPBKDF2EqualsTheLibrary compares with crypto/pbkdf2, over passphrases around
// the block sizes.
func TestPBKDF2EqualsTheLibrary(t *testing.T) {
	for name, h := range map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New} {
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

// TestArgon2Vectors has the values of libargon2 (phc-winner-argon2, test.c) for
// version 1.3.
func TestArgon2Vectors(t *testing.T) {
	passphrase := secret.Copy([]byte("password"))
	defer passphrase.Wipe()
	for _, v := range []struct {
		a    Argon2
		want string
	}{
		{Argon2{Independent: true, Salt: []byte("somesalt"), Time: 2, MemoryKiB: 256, Lanes: 1}, "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"},
		{Argon2{Salt: []byte("somesalt"), Time: 2, MemoryKiB: 256, Lanes: 1}, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{Argon2{Salt: []byte("somesalt"), Time: 2, MemoryKiB: 256, Lanes: 2}, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
	} {
		out := secret.New(32)
		if err := v.a.Key(t.Context(), passphrase, out); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", out.Bytes()); got != v.want {
			t.Errorf("%+v: %s, want %s", v.a, got, v.want)
		}
		out.Wipe()
	}
}

func TestACancelledContextEndsTheWaitForArgon2(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	passphrase, out := secret.Copy([]byte("password")), secret.New(32)
	defer out.Wipe()
	a := Argon2{Salt: make([]byte, 32), Time: 4, MemoryKiB: 32 << 10, Lanes: 1}
	err := a.Key(ctx, passphrase, out)
	passphrase.Wipe() // the caller may: the computation has its own copy
	if !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("got %v", err)
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
