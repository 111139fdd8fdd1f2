package argon2id

import (
	"bytes"
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

func reserve(t *testing.T) *Memory {
	t.Helper()
	m, err := Reserve(reservedParams.MemoryKiB, reservedParams.Lanes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Release)
	return m
}

// TestReservedMemoryIsPopulated looks at what is there before anything is computed.
func TestReservedMemoryIsPopulated(t *testing.T) {
	t.Parallel()
	m := reserve(t)
	<-m.populated
	if err := unix.Madvise(m.arena.mapping[:4096], unix.MADV_POPULATE_WRITE); err != nil {
		t.Skipf("this kernel does not populate: %v", err)
	}
	resident := make([]byte, (len(m.arena.mapping)+4095)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(m.arena.mapping))), uintptr(len(m.arena.mapping)), uintptr(unsafe.Pointer(unsafe.SliceData(resident))))
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

// TestReleaseWhilePopulating is what a token that wins does.
func TestReleaseWhilePopulating(t *testing.T) {
	t.Parallel()
	for range 10 {
		m, err := Reserve(64<<10, 4)
		if err != nil {
			t.Fatal(err)
		}
		m.Release()
	}
	if _, err := Reserve(1, 4); err == nil {
		t.Error("costs out of range were taken")
	}
}
