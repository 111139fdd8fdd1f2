// Package argon2id computes Argon2id and Argon2i, version 1.3 (RFC 9106), faster
// than the libraries do and in memory that goes back to the kernel, overwritten,
// when the key is there or the context ends.
//
// The memory is one anonymous mapping outside the Go heap, in huge pages where
// the kernel gives them and never in a core dump. It is not locked: a gigabyte
// exceeds the limits of most processes. The passphrase is not copied into it, nor
// to the heap.
//
// Blocks are mixed by assembly for amd64, chosen by what the CPU has, and by
// portable Go elsewhere. All compute the same; see kernel.
package argon2id

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/luks2/secret"
)

// ErrNoMemory: the kernel did not give the memory that the costs ask for. Other
// programs may be closed, or a limit of the process (RLIMIT_AS) be raised.
var ErrNoMemory = errors.New("not enough memory")

// Bounds of RFC 9106 §3.1.
const (
	maxLanes   = 1<<24 - 1
	maxCost    = 1<<32 - 1 // passes, KiB
	minLaneKiB = 8
	minOut     = 4 // bytes
)

// Params are the inputs of RFC 9106 §3.1, less the passphrase. A Params is not
// changed by its methods.
type Params struct {
	Independent bool   // Argon2i, which serves old volumes; else Argon2id
	Salt        []byte // any length
	Time        int    // passes, t: 1..2^32-1
	MemoryKiB   int    // m: 8 for each lane..2^32-1
	Lanes       int    // p: 1..2^24-1; computed at once as far as there are CPUs

	// Memory is used if it is large enough and free; nil, or else, the computation maps
	// its own.
	Memory *Memory

	// RFC 9106 §3.1 K and X. LUKS2 has neither, the test vectors have both.
	key, data []byte

	plain  bool   // without assembly and huge pages
	kernel kernel // what tests force
}

// Key fills out, at least 4 bytes, with the key. Both secrets are borrowed. It
// returns within some milliseconds of the end of ctx, with the cause; out is then
// undefined. Costs out of range and [ErrNoMemory] are found before anything is
// computed. The costs are not capped here: the caller says what is affordable.
func (p Params) Key(ctx context.Context, passphrase, out secret.Secret) error {
	if err := p.check(out.Len()); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := newFilling(p)
	if err != nil {
		return fmt.Errorf("reserving %d KiB for Argon2: %w", p.MemoryKiB, err)
	}
	defer f.free()
	secret.Do(func() { f.begin(passphrase.Bytes(), out.Len()) })
	if err := f.fill(ctx); err != nil {
		return err
	}
	secret.Do(func() { f.finish(out.Bytes()) })
	return nil
}

// LibargonTime estimates how long libargon2 takes for these costs on this machine,
// and so cryptsetup and systemd, by computing once as they do: without huge pages
// and fetching ahead, with as many threads. Libargon2 as compiled by Debian takes
// three quarters of the CPU time of our portable code (measured on 64 MiB and
// 1 GiB). The errors are those of Key.
func (p Params) LibargonTime(ctx context.Context) (time.Duration, error) {
	p.plain = true
	passphrase, out := secret.Copy([]byte("measuring")), secret.New(32)
	defer secret.WipeAll([]secret.Secret{passphrase, out})
	begin := time.Now()
	if err := p.Key(ctx, passphrase, out); err != nil {
		return 0, err
	}
	return time.Since(begin) * 3 / 4, nil
}

func (p *Params) check(outLen int) error {
	switch {
	case p.Time < 1 || uint64(p.Time) > maxCost:
		return fmt.Errorf("%d passes of Argon2 are out of range", p.Time)
	case p.Lanes < 1 || p.Lanes > maxLanes:
		return fmt.Errorf("%d lanes of Argon2 are out of range", p.Lanes)
	case p.MemoryKiB < minLaneKiB*p.Lanes || uint64(p.MemoryKiB) > maxCost:
		return fmt.Errorf("%d KiB of memory for Argon2 with %d lanes are out of range", p.MemoryKiB, p.Lanes)
	case outLen < minOut || uint64(outLen) > maxCost:
		return fmt.Errorf("key of %d bytes from Argon2 is out of range", outLen)
	}
	return nil
}

// kind is the parameter y of RFC 9106 §3.1.
func (p *Params) kind() uint32 {
	if p.Independent {
		return 1
	}
	return 2
}
