package argon2id

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"luksmith/luks2/secret"
)

// statusKiB is a figure of /proc/self/status.
func statusKiB(t *testing.T, name string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var n int
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// TestMemoryIsNotKept from one try to the next, nor taken twice.
func TestMemoryIsNotKept(t *testing.T) {
	const mib = 128
	before := statusKiB(t, "VmRSS")
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // resets VmHWM
		t.Fatal(err)
	}
	out := secret.New(32)
	defer out.Wipe()
	for range 4 {
		if err := (Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: mib << 10, Lanes: 2}).Key(t.Context(), secret.Secret{}, out); err != nil {
			t.Fatal(err)
		}
	}
	if most := (statusKiB(t, "VmHWM") - before) >> 10; most < mib || most > mib+8 {
		t.Errorf("four tries with %d MiB took %d MiB", mib, most)
	}
	if left := (statusKiB(t, "VmRSS") - before) >> 10; left > 8 {
		t.Errorf("%d MiB are left", left)
	}
}

// blank reports whether all of the arena is zero.
func blank(f *filling) bool {
	for _, b := range f.arena.blocks {
		if b != (block{}) {
			return false
		}
	}
	return true
}

func TestMemoryIsOverwritten(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 3} {
		f, err := newFilling(Params{Salt: make([]byte, 32), Time: 2, MemoryKiB: 4<<10 - 3, Lanes: lanes})
		if err != nil {
			t.Fatal(err)
		}
		f.begin([]byte("password"), 32)
		if err := f.fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.finish(make([]byte, 32))
		if blank(f) {
			t.Error("nothing was written")
		}
		f.wipe()
		if !blank(f) {
			t.Errorf("%d lanes: not overwritten", lanes)
		}
		f.arena.free()
	}
}

// cancelAfter is a kernel that ends the context at its n-th call, and counts the
// blocks that were asked for after that.
func cancelAfter(n int64, cancel func()) (k kernel, after func() int64) {
	var calls, blocks atomic.Int64
	best := kernels()[len(kernels())-1]
	return kernel{"ends the context", func(c *chunk) {
		switch at := calls.Add(1); {
		case at == n:
			cancel()
		case at > n:
			blocks.Add(int64(c.n))
		}
		best.fill(c)
	}}, blocks.Load
}

// TestTheContextEndsTheWork: no lane fills more than the chunk that it has begun
// and perhaps one more, which takes a millisecond; what was written is overwritten.
func TestTheContextEndsTheWork(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{1, 2, 70, 140, 400} {
		for _, lanes := range []int{1, 4} {
			ctx, cancel := context.WithCancelCause(t.Context())
			reason := errors.New("the reason")
			k, after := cancelAfter(n, func() { cancel(reason) })
			f, err := newFilling(Params{Salt: make([]byte, 32), Time: 1000, MemoryKiB: 32 << 10, Lanes: lanes, kernel: k})
			if err != nil {
				t.Fatal(err)
			}
			f.begin([]byte("password"), 32)
			if err := f.fill(ctx); !errors.Is(err, reason) {
				t.Errorf("call %d, %d lanes: %v", n, lanes, err)
			}
			if got := after(); got > int64(lanes)*2*maxChunk {
				t.Errorf("call %d, %d lanes: %d more blocks", n, lanes, got)
			}
			f.wipe()
			if !blank(f) {
				t.Errorf("call %d, %d lanes: not overwritten", n, lanes)
			}
			f.arena.free()
		}
	}
}

func TestAnEndedContextStartsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := secret.New(32)
	defer out.Wipe()
	k := kernel{"fails", func(*chunk) { t.Error("something was computed") }}
	err := Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: 1 << 20, Lanes: 1, kernel: k}.Key(ctx, secret.Secret{}, out)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTheArena is aligned, all zero, and not for core dumps and children.
func TestTheArena(t *testing.T) {
	t.Parallel()
	for _, huge := range []bool{true, false} {
		for _, n := range []int{1, 3, 2048, 5000} {
			a, err := newArena(n, huge)
			if err != nil {
				t.Fatal(err)
			}
			start := uintptr(unsafe.Pointer(&a.blocks[0]))
			if len(a.blocks) != n || start%blockSize != 0 || n >= hugePage/blockSize && start%hugePage != 0 {
				t.Errorf("%d blocks: %d at %#x", n, len(a.blocks), start)
			}
			a.blocks[n-1][blockWords-1] = 1 // is inside the mapping
			flags := mappingFlags(t, uintptr(unsafe.Pointer(unsafe.SliceData(a.mapping))))
			if !strings.Contains(flags, " dd") || !strings.Contains(flags, " dc") || strings.Contains(flags, " lo") {
				t.Errorf("%d blocks: the mapping has the flags %s", n, flags)
			}
			a.free()
		}
	}
}

// mappingFlags are the flags of the mapping that has an address.
func mappingFlags(t *testing.T, address uintptr) string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(string(line), "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok && inside {
			return string(flags)
		}
	}
	t.Fatalf("no mapping at %#x", address)
	return ""
}
