package argon2id

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

var reservedParams = Params{Salt: make([]byte, 32), Time: 1, MemoryKiB: 32 << 10, Lanes: 2}

// key computes with and without reserved memory.
func (p Params) testKey(t *testing.T, m *Memory) []byte {
	t.Helper()
	p.Memory = m
	out := secret.New(32)
	defer out.Wipe()
	if err := p.Key(t.Context(), secret.Copy([]byte("passphrase")), out); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(out.Bytes())
}

func always() bool { return true }

func reserve(t *testing.T) *Memory {
	t.Helper()
	m, err := NewMemory(reservedParams.MemoryKiB, reservedParams.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	m.Populate(always)
	t.Cleanup(m.Release)
	return m
}

// TestReservedMemoryIsPopulated looks at what is there before anything is computed.
func TestReservedMemoryIsPopulated(t *testing.T) {
	t.Parallel()
	m := reserve(t)
	<-m.populated
	if m.found == 0 {
		t.Skip("this kernel does not populate")
	}
	resident := make([]byte, (len(m.arena.blocks)+3)/4) // pages
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m.arena.blocks[0])), uintptr(len(m.arena.blocks)*blockSize), uintptr(unsafe.Pointer(unsafe.SliceData(resident))))
	if errno != 0 {
		t.Fatal(errno)
	}
	if n := bytes.Count(resident, []byte{1}); n != len(resident) {
		t.Errorf("%d of %d pages are there", n, len(resident))
	}
}

// TestReservedMemoryServesOneAfterTheOther: each computation finds it as the first
// one did, and gives the same key as with memory of its own.
func TestReservedMemoryServesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	want := reservedParams.testKey(t, nil)
	m := reserve(t)
	small := reservedParams
	small.MemoryKiB /= 2
	for range 2 {
		if !m.Fits(reservedParams.MemoryKiB, reservedParams.Lanes) {
			t.Fatal("it does not fit")
		}
		if got := reservedParams.testKey(t, m); !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
		if got := small.testKey(t, m); !bytes.Equal(got, small.testKey(t, nil)) {
			t.Error("less memory gives another key")
		}
		for i := range m.arena.blocks {
			if m.arena.blocks[i] != (block{}) {
				t.Fatalf("block %d is not overwritten", i)
			}
		}
	}
	large := reservedParams
	large.MemoryKiB *= 2
	if m.Fits(large.MemoryKiB, large.Lanes) || !bytes.Equal(large.testKey(t, m), large.testKey(t, nil)) {
		t.Error("too little memory was used")
	}
}

// TestReservedMemoryInUse is left to who uses it: the next one takes memory of its
// own, and Release waits for the end.
func TestReservedMemoryInUse(t *testing.T) {
	t.Parallel()
	want := reservedParams.testKey(t, nil)
	m := reserve(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got := reservedParams.testKey(t, m); !bytes.Equal(got, want) {
				t.Errorf("%x, want %x", got, want)
			}
		})
	}
	all.Wait()
	p := reservedParams
	p.Memory = m
	f, err := newFilling(p)
	if err != nil || !f.reserved {
		t.Fatal(err)
	}
	m.Release()
	m.Release()
	f.begin([]byte("passphrase"), 32) // still mapped
	f.free()
	if m.Fits(1<<10, 1) {
		t.Error("it is offered after its release")
	}
	if got := reservedParams.testKey(t, m); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestMissingMemory is what has still to be asked of the machine: all of it, what was not
// populated, nothing after a computation.
func TestMissingMemory(t *testing.T) {
	t.Parallel()
	p := reservedParams
	m, err := NewMemory(p.MemoryKiB, p.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Release()
	all := p.blocks()
	if n := m.Missing(p.MemoryKiB, p.Lanes); n != all {
		t.Errorf("%d KiB are missing of new memory, want %d", n, all)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.Memory, p.kernel = m, kernel{"cancels", func(*chunk) { cancel() }}
	if err := p.Key(ctx, secret.Secret{}, secret.New(32)); err == nil {
		t.Error("finished")
	}
	if n := m.Missing(p.MemoryKiB, p.Lanes); n < all/2 {
		t.Errorf("%d KiB are missing after a computation that ended early", n)
	}
	reservedParams.testKey(t, m)
	if n := m.Missing(p.MemoryKiB, p.Lanes); n != 0 {
		t.Errorf("%d KiB are missing after a computation", n)
	}
	steps := 0
	half, err := NewMemory(p.MemoryKiB, p.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Release()
	half.Populate(func() bool { steps++; return steps == 1 })
	<-half.populated
	if n := half.Missing(p.MemoryKiB, p.Lanes); n != all && n != all-populateStep {
		t.Errorf("%d KiB are missing after one step", n)
	}
}

// TestReleaseWhilePopulating is what a token that wins does.
func TestReleaseWhilePopulating(t *testing.T) {
	t.Parallel()
	for range 10 {
		m, err := NewMemory(64<<10, 4)
		if err != nil {
			t.Fatal(err)
		}
		m.Populate(always)
		m.Release()
	}
	if _, err := NewMemory(1, 4); err == nil {
		t.Error("costs out of range were taken")
	}
}
