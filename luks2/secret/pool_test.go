package secret

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// faults is how many pages the kernel has found for this thread.
func faults(t *testing.T) int64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return int64(u.Minflt)
}

// TestSecretsAreMadeOfPagesThatAreThere counts what the kernel has to do for secrets
// that are made and wiped one after the other.
func TestSecretsAreMadeOfPagesThatAreThere(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, size := range []int{32, 256 << 10} {
		before := faults(t)
		for range 500 {
			New(size).Wipe()
		}
		if n := faults(t) - before; n > 250 {
			t.Errorf("500 secrets of %d bytes take %d pages of the kernel", size, n)
		}
	}
}

// TestSecretsShareNothing: neither a page while they live, nor bytes afterwards.
func TestSecretsShareNothing(t *testing.T) {
	page := uintptr(unix.Getpagesize())
	for range 3 {
		var list []Secret
		seen := map[uintptr]bool{}
		for _, size := range []int{1, 40, 4096, 4097, 40, 9000, 1, 4096, 4096, 4096, 4096, 4096, 4096} {
			s := New(size)
			list = append(list, s)
			if !bytes.Equal(s.Bytes(), make([]byte, size)) {
				t.Error("a new secret is not zero")
			}
			at := uintptr(unsafe.Pointer(unsafe.SliceData(s.Bytes())))
			for p := at / page; p <= (at+uintptr(size)-1)/page; p++ {
				if seen[p] {
					t.Error("two secrets are in one page")
				}
				seen[p] = true
			}
			copy(s.Bytes(), bytes.Repeat([]byte{0xee}, size))
		}
		WipeAll(list)
	}
}

// TestMuchMemoryIsGivenBack to the kernel when it was wiped.
func TestMuchMemoryIsGivenBack(t *testing.T) {
	var p pool
	var list [][]byte
	for range 600 {
		list = append(list, p.take(unix.Getpagesize()))
	}
	list = append(list, p.take(3*maxKept))
	for _, m := range list {
		copy(m, "secret")
		p.give(m)
	}
	if p.kept > maxKept || p.kept != len(bytes.Join(p.free, nil)) {
		t.Errorf("%d bytes are kept", p.kept)
	}
	for _, m := range p.free {
		if !bytes.Equal(m, make([]byte, len(m))) {
			t.Error("memory is kept as it was")
		}
	}
}

// TestALimitOnLockedMemoryIsUsedUp: what does not fit at a time is locked page by page.
func TestALimitOnLockedMemoryIsUsedUp(t *testing.T) {
	runtime.LockOSThread() // which ends with the test, without the capability
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	room := uint64(lockedNow(t) + 3*unix.Getpagesize())
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: room, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old) }()
	var p pool
	m := p.take(unix.Getpagesize())
	if flags, _ := vmFlags(t, unsafe.Pointer(unsafe.SliceData(m))); !strings.Contains(flags, " lo ") {
		t.Errorf("VmFlags %q of the first page", flags)
	}
	if n := uint64(lockedNow(t)); n != room {
		t.Errorf("%d of %d bytes are locked", n, room)
	}
}

// lockedNow is how many bytes of this process are locked.
func lockedNow(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "VmLck:"); ok {
			n, err := strconv.Atoi(strings.Fields(text)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmLck")
	return 0
}
