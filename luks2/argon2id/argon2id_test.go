package argon2id

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// key computes with every kernel that this CPU has, and without huge pages, and
// reports those that differ from the first.
func key(t testing.TB, p Params, passphrase []byte, size int) []byte {
	t.Helper()
	text := secret.Copy(passphrase)
	defer text.Wipe()
	var first []byte
	for _, k := range append(kernels(), kernel{name: "plain"}) {
		p.kernel, p.plain = k, k.fill == nil
		out := secret.New(size)
		if err := p.Key(t.Context(), text, out); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		if first == nil {
			first = bytes.Clone(out.Bytes())
		}
		if !bytes.Equal(out.Bytes(), first) {
			t.Errorf("%d passes, %d KiB, %d lanes, Argon2i %v: %s differs from %s", p.Time, p.MemoryKiB, p.Lanes, p.Independent, k.name, kernels()[0].name)
		}
		out.Wipe()
	}
	return first
}

// library computes with golang.org/x/crypto/argon2.
func library(p Params, passphrase []byte, size int) []byte {
	f := argon2.IDKey
	if p.Independent {
		f = argon2.Key
	}
	return f(passphrase, p.Salt, uint32(p.Time), uint32(p.MemoryKiB), uint8(p.Lanes), uint32(size))
}

// TestTheVectors of RFC 9106 §5.2 and §5.3, and those of libargon2
// (phc-winner-argon2, src/test.c) for version 1.3.
func TestTheVectors(t *testing.T) {
	t.Parallel()
	repeated := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	rfc := Params{Salt: repeated(2, 16), Time: 3, MemoryKiB: 32, Lanes: 4, key: repeated(3, 8), data: repeated(4, 12)}
	rfcI, rfcPass := rfc, repeated(1, 32)
	rfcI.Independent = true
	salt, pass := []byte("somesalt"), []byte("password")
	for _, v := range []struct {
		p    Params
		pass []byte
		want string
	}{
		{rfcI, rfcPass, "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8"},
		{rfc, rfcPass, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"},
		{Params{Independent: true, Salt: salt, Time: 2, MemoryKiB: 65536, Lanes: 1}, pass, "c1628832147d9720c5bd1cfd61367078729f6dfb6f8fea9ff98158e0d7816ed0"},
		{Params{Independent: true, Salt: salt, Time: 2, MemoryKiB: 256, Lanes: 1}, pass, "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"},
		{Params{Independent: true, Salt: salt, Time: 2, MemoryKiB: 256, Lanes: 2}, pass, "4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61"},
		{Params{Salt: salt, Time: 2, MemoryKiB: 65536, Lanes: 1}, pass, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
		{Params{Salt: salt, Time: 2, MemoryKiB: 256, Lanes: 1}, pass, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{Params{Salt: salt, Time: 2, MemoryKiB: 256, Lanes: 2}, pass, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
	} {
		if got := hex.EncodeToString(key(t, v.p, v.pass, 32)); got != v.want {
			t.Errorf("%d passes, %d KiB, %d lanes, Argon2i %v: %s, want %s", v.p.Time, v.p.MemoryKiB, v.p.Lanes, v.p.Independent, got, v.want)
		}
	}
}

// TestEveryKernelEqualsTheLibrary compares with x/crypto over random inputs, mostly
// small: sizes around the 128 pairs of words that are computed at once, lanes that
// do not divide the memory, keys shorter and longer than a hash.
func TestEveryKernelEqualsTheLibrary(t *testing.T) {
	t.Parallel()
	runs, most := 2000, float64(8<<10)
	if testing.Short() {
		runs = 200
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	text := func(n int) []byte {
		b := make([]byte, r.IntN(n))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for run := range runs {
		p := Params{Independent: r.IntN(2) == 0, Salt: text(80), Time: 1 + r.IntN(5), Lanes: 1 + r.IntN(8)}
		least := float64(8 * p.Lanes)
		p.MemoryKiB = int(least * math.Pow(most/least, math.Pow(r.Float64(), 8)))
		passphrase, size := text(300), 4+r.IntN(200)
		if got, want := key(t, p, passphrase, size), library(p, passphrase, size); !bytes.Equal(got, want) || t.Failed() {
			t.Fatalf("seed %d, run %d, %d passes, %d KiB, %d lanes, Argon2i %v: %x, want %x", seed, run, p.Time, p.MemoryKiB, p.Lanes, p.Independent, got, want)
		}
	}
}

// TestLargeMemoryEqualsTheLibrary has segments of many chunks and huge pages.
func TestLargeMemoryEqualsTheLibrary(t *testing.T) {
	t.Parallel()
	for _, p := range []Params{
		{Salt: make([]byte, 32), Time: 2, MemoryKiB: 64 << 10, Lanes: 1}, {Salt: make([]byte, 32), Time: 3, MemoryKiB: 64<<10 - 1, Lanes: 4},
		{Salt: make([]byte, 32), Time: 2, MemoryKiB: 64<<10 - 17, Lanes: 3, Independent: true},
	} {
		if got, want := key(t, p, []byte("p"), 64), library(p, []byte("p"), 64); !bytes.Equal(got, want) {
			t.Errorf("%d passes, %d KiB, %d lanes: %x, want %x", p.Time, p.MemoryKiB, p.Lanes, got, want)
		}
	}
}

func TestLibargonTimeGrowsWithTheCosts(t *testing.T) {
	p := Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: 1 << 10, Lanes: 2}
	once, err := p.LibargonTime(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Time = 100
	often, err := p.LibargonTime(t.Context())
	if err != nil || once <= 0 || often < 2*once {
		t.Errorf("one pass %v, 100 passes %v, %v", once, often, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.LibargonTime(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCostsOutOfRangeAreRefused(t *testing.T) {
	t.Parallel()
	good := Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: 32, Lanes: 2}
	over := int64(math.MaxUint32 + 1) // 0 where int is small
	for name, c := range map[string]struct {
		change func(*Params)
		size   int
		want   string
	}{
		"no pass":            {func(p *Params) { p.Time = 0 }, 32, "0 passes"},
		"negative passes":    {func(p *Params) { p.Time = -1 }, 32, "-1 passes"},
		"2^32 passes":        {func(p *Params) { p.Time = int(over) }, 32, "passes"},
		"no lane":            {func(p *Params) { p.Lanes = 0 }, 32, "0 lanes"},
		"2^24 lanes":         {func(p *Params) { p.Lanes, p.MemoryKiB = 1<<24, int(over-1) }, 32, "lanes"},
		"too little memory":  {func(p *Params) { p.MemoryKiB = 15 }, 32, "15 KiB"},
		"negative memory":    {func(p *Params) { p.MemoryKiB = math.MinInt }, 32, "KiB"},
		"2^32 KiB of memory": {func(p *Params) { p.MemoryKiB = int(over) }, 32, "KiB"},
		"most of everything": {func(p *Params) { p.Time, p.MemoryKiB, p.Lanes = math.MaxInt, math.MaxInt, math.MaxInt }, 32, "out of range"},
		"short key":          {func(p *Params) {}, 3, "key of 3 bytes"},
		"no key":             {func(p *Params) {}, 0, "key of 0 bytes"},
	} {
		p, out := good, secret.New(c.size)
		c.change(&p)
		if err := p.Key(t.Context(), secret.Secret{}, out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		out.Wipe()
	}
	out := secret.New(4)
	defer out.Wipe()
	if err := good.Key(t.Context(), secret.Secret{}, out); err != nil {
		t.Errorf("an empty passphrase: %v", err)
	}
}

// TestALackOfMemoryIsAnError that can be told from others.
func TestALackOfMemoryIsAnError(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	limited := old
	limited.Cur = uint64(statusKiB(t, "VmSize")<<10) + 1<<30 // for the runtime
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limited); err != nil {
		t.Fatal(err)
	}
	out := secret.New(32)
	defer out.Wipe()
	err := Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: 8 << 20, Lanes: 4}.Key(t.Context(), secret.Secret{}, out)
	if err := unix.Setrlimit(unix.RLIMIT_AS, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrNoMemory) || !strings.Contains(fmt.Sprint(err), "8388608 KiB") {
		t.Errorf("8 GiB below a limit: %v", err)
	}
}

// TestNothingIsLeftInMemory: neither passphrase nor key.
func TestNothingIsLeftInMemory(t *testing.T) {
	for _, k := range kernels() {
		passphrase, out := secret.Random(40), secret.New(64)
		p := Params{Salt: make([]byte, 32), Time: 2, MemoryKiB: 4 << 10, Lanes: 3, kernel: k}
		if err := p.Key(t.Context(), passphrase, out); err != nil {
			t.Fatal(err)
		}
		texts := map[string][]byte{"passphrase": testenv.Inverted(passphrase.Bytes()[:20]), "end of the passphrase": testenv.Inverted(passphrase.Bytes()[20:]),
			"key": testenv.Inverted(out.Bytes()[:32]), "end of the key": testenv.Inverted(out.Bytes()[32:])}
		if n := testenv.Copies(t, texts["key"]); n != 1 {
			t.Errorf("%s: the key is there %d times instead of once", k.name, n)
		}
		secret.WipeAll([]secret.Secret{passphrase, out})
		for name, text := range texts {
			if n := testenv.Copies(t, text); n != 0 {
				t.Errorf("%s: the %s is there %d times", k.name, name, n)
			}
		}
	}
}

func FuzzKey(f *testing.F) {
	f.Add([]byte("password"), []byte("somesalt"), uint8(2), uint16(256), uint8(2), uint8(32), true)
	f.Add([]byte{}, []byte{}, uint8(1), uint16(8), uint8(1), uint8(4), false)
	f.Fuzz(func(t *testing.T, passphrase, salt []byte, time uint8, memory uint16, lanes, size uint8, independent bool) {
		p := Params{Independent: independent, Salt: salt, Time: 1 + int(time%4), Lanes: 1 + int(lanes%16), MemoryKiB: int(memory % 4096)}
		p.MemoryKiB = max(p.MemoryKiB, 8*p.Lanes)
		size = max(size, 4)
		if got, want := key(t, p, passphrase, int(size)), library(p, passphrase, int(size)); !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
	})
}
