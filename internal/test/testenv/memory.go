package testenv

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"luksmith/luks2/secret"
)

// Inverted returns b with every bit flipped, the form in which [Copies] takes what
// to look for.
func Inverted(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = ^c
	}
	return out
}

// Copies counts how often a text occurs in the memory of this process, garbage
// included. The text is given inverted, so that the search does not find its own
// pattern.
func Copies(t testing.TB, inverted []byte) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	// Not on the heap: what is left in the buffer would be found by the next search.
	buffer := secret.New(1 << 20)
	defer buffer.Wipe()
	own := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buffer.Bytes()))))
	count := 0
	for line := range strings.Lines(string(maps)) {
		from, to, ok := writable(line)
		if !ok || from <= own && own < to {
			continue
		}
		step := uint64(buffer.Len() - len(inverted) + 1)
		for at := from; at < to; at += step {
			n, _ := mem.ReadAt(buffer.Bytes()[:min(uint64(buffer.Len()), to-at)], int64(at)) // gaps read as nothing
			count += matches(buffer.Bytes()[:n], inverted)
		}
	}
	return count
}

// writable parses a line of /proc/self/maps and picks private memory that the
// program can have written.
func writable(line string) (from, to uint64, ok bool) {
	f := strings.Fields(line)
	if len(f) < 5 || !strings.HasPrefix(f[1], "rw") {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	return from, to, err1 == nil && err2 == nil
}

func matches(b, inverted []byte) int {
	count := 0
	for len(b) >= len(inverted) {
		i := bytes.IndexByte(b[:len(b)-len(inverted)+1], ^inverted[0])
		if i < 0 {
			break
		}
		j := 1
		for j < len(inverted) && b[i+j] == ^inverted[j] {
			j++
		}
		if j == len(inverted) {
			count++
		}
		b = b[i+1:]
	}
	return count
}
