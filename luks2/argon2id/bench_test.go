package argon2id

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

func userMilliseconds(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()) / 1e6
}

// BenchmarkKey compares every kernel with x/crypto, in turn: four passes, two lanes.
// The figures are the least user CPU time and its ratio to x/crypto's. The whole
// command is compared with cryptsetup by BenchmarkPassphrase in folder
// cryptenroll.
//
//	go test -run '^$' -bench Key -benchtime 5x ./luks2/argon2id
func BenchmarkKey(b *testing.B) {
	passphrase, out := secret.Copy([]byte("password")), secret.New(32)
	defer secret.WipeAll([]secret.Secret{passphrase, out})
	for _, mib := range []int{64, 1024} {
		for _, k := range kernels() {
			b.Run(fmt.Sprintf("%dMiB/%s", mib, k.name), func(b *testing.B) {
				p := Params{Time: 4, Lanes: 2, MemoryKiB: mib << 10, Salt: make([]byte, 32), kernel: k}
				ours, theirs := math.Inf(1), math.Inf(1)
				for b.Loop() {
					begin := userMilliseconds(b)
					if err := p.Key(b.Context(), passphrase, out); err != nil {
						b.Fatal(err)
					}
					between := userMilliseconds(b)
					argon2.IDKey(passphrase.Bytes(), p.Salt, uint32(p.Time), uint32(p.MemoryKiB), uint8(p.Lanes), uint32(out.Len()))
					ours, theirs = min(ours, between-begin), min(theirs, userMilliseconds(b)-between)
				}
				b.ReportMetric(ours, "user-ms")
				b.ReportMetric(ours/theirs, "user/x-crypto's")
			})
		}
	}
}

// BenchmarkCancelling is how long Key takes to return after the end of its context,
// with 1 GiB in use.
func BenchmarkCancelling(b *testing.B) {
	out := secret.New(32)
	defer out.Wipe()
	p := Params{Time: 1000, Lanes: 4, MemoryKiB: 1 << 20, Salt: make([]byte, 32)}
	least := time.Hour
	for b.Loop() {
		full := make(chan struct{})
		ctx, cancel := context.WithCancel(b.Context())
		k := kernels()[len(kernels())-1]
		var once sync.Once
		p.kernel = kernel{k.name, func(c *chunk) {
			if c.start > scratchSize { // the second pass: all memory is in use
				once.Do(func() { close(full) })
			}
			k.fill(c)
		}}
		done := make(chan error)
		go func() { done <- p.Key(ctx, secret.Secret{}, out) }()
		<-full
		begin := time.Now()
		cancel()
		if err := <-done; err == nil {
			b.Fatal("finished")
		}
		least = min(least, time.Since(begin))
	}
	b.ReportMetric(least.Seconds()*1e3, "ms-to-return")
}

// BenchmarkFromEnter is what is left to compute when the memory was found while a
// person typed, beside the whole.
func BenchmarkFromEnter(b *testing.B) {
	out := secret.New(32)
	defer out.Wipe()
	for _, reserved := range []bool{false, true} {
		b.Run(fmt.Sprintf("reserved=%v", reserved), func(b *testing.B) {
			for b.Loop() {
				p := Params{Time: 4, Lanes: 4, MemoryKiB: 1 << 20, Salt: make([]byte, 32)}
				if reserved {
					b.StopTimer()
					m, err := NewMemory(p.MemoryKiB, p.Lanes)
					if err != nil {
						b.Fatal(err)
					}
					m.Populate(always)
					<-m.populated
					p.Memory = m
					b.StartTimer()
				}
				if err := p.Key(b.Context(), secret.Secret{}, out); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if p.Memory != nil {
					p.Memory.Release()
				}
				b.StartTimer()
			}
		})
	}
}
