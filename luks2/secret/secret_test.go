package secret

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"text/template"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const sample = "correct horse battery staple"

// leaks reports whether text holds the sample in any spelling that fmt knows.
func leaks(text string) bool {
	lower := strings.ToLower(text)
	decimal := strings.Trim(fmt.Sprint([]byte(sample)), "[]")
	for _, needle := range []string{sample[:7], hex.EncodeToString([]byte(sample[:7])), fmt.Sprintf("% x", sample[:7]),
		decimal[:20], fmt.Sprintf("%#x", sample[:1]) + ", " + fmt.Sprintf("%#x", sample[1:2])} {
		if strings.Contains(lower, needle) {
			return true
		}
	}
	return false
}

type nested struct {
	Exported Secret
	hidden   Secret
	pointer  *Secret
	list     []Secret
	any      any
}

func holders(s Secret) map[string]any {
	n := nested{s, s, &s, []Secret{s}, s}
	return map[string]any{"value": s, "pointer": &s, "struct": n, "struct pointer": &n, "slice": []Secret{s},
		"map": map[string]Secret{"k": s}, "interface": any(any(s)), "array": [1]any{n}}
}

func TestNoVerbPrintsTheBytes(t *testing.T) {
	s := Copy([]byte(sample))
	defer s.Wipe()
	for name, holder := range holders(s) {
		for c := rune('!'); c <= '~'; c++ {
			for _, flags := range []string{"", "+", "#", "-40", ".99", " ", "0"} {
				format := "%" + flags + string(c)
				if out := fmt.Sprintf(format, holder); leaks(out) {
					t.Errorf("%s with %s prints the secret: %q", name, format, out)
				}
			}
		}
		if leaks(fmt.Sprint(holder)) || leaks(fmt.Sprintln(holder)) || leaks(fmt.Errorf("x: %v", holder).Error()) {
			t.Errorf("%s leaks through Sprint", name)
		}
	}
	if got := fmt.Sprintf("%v %s %x", s, s, &s); got != "[secret] [secret] [secret]" {
		t.Errorf("placeholder is %q", got)
	}
}

func TestLeakDetectorDetects(t *testing.T) {
	for _, format := range []string{"%s", "%v", "%x", "% x", "%d", "%#v", "%q", "%X"} {
		if !leaks(fmt.Sprintf(format, []byte(sample))) {
			t.Errorf("the detector does not see a plain slice printed with %s", format)
		}
	}
}

func TestNoEncoderOrLoggerTakesTheBytes(t *testing.T) {
	s := Copy([]byte(sample))
	defer s.Wipe()
	var out bytes.Buffer
	for name, holder := range holders(s) {
		b, _ := json.Marshal(holder)
		out.Write(b)
		b, _ = xml.Marshal(holder)
		out.Write(b)
		_ = gob.NewEncoder(&out).Encode(holder)
		log.New(&out, "", 0).Print(holder)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", holder)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", holder)
		_ = template.Must(template.New("x").Parse("{{.}}{{printf \"%x\" .}}")).Execute(&out, holder)
		out.WriteString(cmp.Diff(holder, nil, cmp.Exporter(func(reflect.Type) bool { return true })))
		if leaks(out.String()) {
			t.Fatalf("%s leaks: %q", name, out.String())
		}
	}
	if _, err := json.Marshal(s); !errors.Is(err, ErrEncode) {
		t.Errorf("json.Marshal: %v, want ErrEncode", err)
	}
	if _, err := json.Marshal(map[string]any{"a": &s}); !errors.Is(err, ErrEncode) {
		t.Errorf("json.Marshal of a pointer: %v, want ErrEncode", err)
	}
	if err := gob.NewEncoder(&out).Encode(s); !errors.Is(err, ErrEncode) {
		t.Errorf("gob: %v, want ErrEncode", err)
	}
}

// vmFlags returns the VmFlags and Locked figure of the mapping that holds p.
func vmFlags(t *testing.T, p unsafe.Pointer) (flags string, lockedKB int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if from, to, ok := addressRange(line); ok {
			inside = uint64(uintptr(p)) >= from && uint64(uintptr(p)) < to
			continue
		}
		if !inside {
			continue
		}
		if v, ok := strings.CutPrefix(line, "Locked:"); ok {
			lockedKB, _ = strconv.Atoi(strings.Fields(v)[0])
		}
		if v, ok := strings.CutPrefix(line, "VmFlags:"); ok {
			return v + " ", lockedKB
		}
	}
	t.Fatalf("no mapping holds %p", p)
	return "", 0
}

func addressRange(line string) (from, to uint64, ok bool) {
	head, _, _ := strings.Cut(line, " ")
	a, b, found := strings.Cut(head, "-")
	if !found {
		return 0, 0, false
	}
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	return from, to, err1 == nil && err2 == nil
}

func TestMemoryIsLockedAndNotDumped(t *testing.T) {
	s := Copy([]byte(sample))
	defer s.Wipe()
	flags, locked := vmFlags(t, unsafe.Pointer(unsafe.SliceData(s.Bytes())))
	for _, want := range []string{" lo ", " dd ", " dc "} { // locked, do not dump, do not copy on fork
		if !strings.Contains(flags, want) {
			t.Errorf("VmFlags %q lack%q", flags, want)
		}
	}
	if locked == 0 {
		t.Error("no page of the secret is locked")
	}
}

// occurrences counts in the whole address space the needle that is stored
// inverted, so that the search does not find its own pattern.
func occurrences(t *testing.T, inverted []byte) int {
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
	chunk := make([]byte, 1<<20)
	count := 0
	for line := range strings.Lines(string(maps)) {
		from, to, ok := addressRange(line)
		if !ok || !strings.Contains(line, " rw") || strings.Contains(line, "[vvar]") {
			continue
		}
		own := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(chunk))))
		for at := from; at < to; at += uint64(len(chunk)) - uint64(len(inverted)) {
			n, _ := mem.ReadAt(chunk[:min(uint64(len(chunk)), to-at)], int64(at))
			for i := 0; i+len(inverted) <= n; i++ {
				if addr := at + uint64(i); addr+uint64(len(inverted)) > own && addr < own+uint64(len(chunk)) {
					continue
				}
				if chunk[i] != ^inverted[0] {
					continue
				}
				j := 1
				for j < len(inverted) && chunk[i+j] == ^inverted[j] {
					j++
				}
				if j == len(inverted) {
					count++
				}
			}
		}
	}
	return count
}

func TestWipeLeavesNothing(t *testing.T) {
	s := Random(4096 + 40)
	inverted := make([]byte, 32)
	for i := range inverted {
		inverted[i] = ^s.Bytes()[4096+i]
	}
	short := s.Clone()
	if n := occurrences(t, inverted); n != 2 {
		t.Fatalf("the search finds %d copies of a live secret and its clone, want 2", n)
	}
	short.Truncate(4096)
	if n := occurrences(t, inverted); n != 1 {
		t.Errorf("%d copies after Truncate, want 1", n)
	}
	copied := s
	s.Wipe()
	s.Wipe()
	if n := occurrences(t, inverted); n != 0 {
		t.Errorf("%d copies after Wipe", n)
	}
	if copied.Len() != 0 || copied.Bytes() != nil {
		t.Error("a copy still has bytes after Wipe")
	}
	short.Wipe()
}

func TestRead(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 9000, 10000} {
		in := bytes.Repeat([]byte{7}, size)
		got, err := Read(iotest.HalfReader(bytes.NewReader(in)), 10000)
		if err != nil || !bytes.Equal(got.Bytes(), in) {
			t.Errorf("%d bytes: %v, %d bytes back", size, err, got.Len())
		}
		got.Wipe()
	}
	if _, err := Read(bytes.NewReader(make([]byte, 10001)), 10000); !errors.Is(err, ErrTooLong) {
		t.Errorf("10001 bytes: %v, want ErrTooLong", err)
	}
	if _, err := Read(iotest.ErrReader(os.ErrClosed), 10); !errors.Is(err, os.ErrClosed) {
		t.Errorf("reader's error: %v", err)
	}
}

func TestTakeWipesTheSource(t *testing.T) {
	b := []byte(sample)
	s := Take(b)
	defer s.Wipe()
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("Take leaves the bytes in its argument")
	}
	if string(s.Bytes()) != sample {
		t.Error("Take changed the bytes")
	}
}

func TestBase64JoinEqual(t *testing.T) {
	a, b := Copy([]byte("foo")), Copy([]byte("bars"))
	joined := Join(a, b)
	text := Base64(joined)
	defer WipeAll([]Secret{a, b, joined, text})
	if string(text.Bytes()) != "Zm9vYmFycw==" {
		t.Errorf("got %s", text.Bytes())
	}
	if UnsafeString(joined) != "foobars" || !joined.Equal(Copy([]byte("foobars"))) || joined.Equal(a) {
		t.Error("Join or Equal")
	}
	if !(Secret{}).Equal(New(0)) || (Secret{}).Len() != 0 {
		t.Error("empty secrets")
	}
}

func TestDoRuns(t *testing.T) {
	ran := false
	Do(func() { ran = true })
	if !ran {
		t.Error("Do did not run its function")
	}
}

// TestHarden runs itself in a child, because the settings stay with the process.
func TestHarden(t *testing.T) {
	if os.Getenv("LUKSMITH_TEST_HARDEN") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHarden$", "-test.v")
		cmd.Env = append(os.Environ(), "LUKSMITH_TEST_HARDEN=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := Harden(); err != nil {
		t.Fatal(err)
	}
	limits, _ := os.ReadFile("/proc/self/limits")
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && strings.Fields(line)[4] != "0" {
			t.Errorf("core limit: %s", line)
		}
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 0 {
		t.Errorf("dumpable is %d, %v", d, err)
	}
}
