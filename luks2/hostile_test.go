package luks2

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// hostileDocuments are texts of up to 4 MiB that would be expensive for a reader
// that follows every reference.
func hostileDocuments() map[string]string {
	const (
		frame  = `{"keyslots":{%s},"tokens":{%s},"segments":{"0":{"type":"linear","offset":"0","size":"dynamic"}%s},"digests":{%s},"config":{"json_size":"4190208","keyslots_size":"0"%s}}`
		areas  = `"%d":{"type":"x","key_size":1,"area":{"type":"x","offset":"%d","size":"4096"}},`
		tokens = `"%d":{"type":"x","keyslots":["0"]},`
	)
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	var slots strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&slots, areas, i, (8<<20)+i*4096)
	}
	keyslots := strings.TrimSuffix(slots.String(), ",")
	refs := `"0":{"type":"x","keyslots":[` + strings.TrimSuffix(strings.Repeat(`"3999",`, 30000), ",") + `],"segments":[]}`
	return map[string]string{
		"values":         fmt.Sprintf(frame, "", `"0":{"type":"x","keyslots":[],"a":[`+strings.Repeat("1,", 1<<20)+`1]}`, "", "", ""),
		"tokens":         fmt.Sprintf(frame, "", many(strings.Replace(tokens, `["0"]`, `[]`, 1), 20000), "", "", ""),
		"keyslots":       fmt.Sprintf(strings.Replace(frame, `"0"%s}}`, `"134217728"%s}}`, 1), keyslots, "", "", "", ""),
		"references":     fmt.Sprintf(strings.Replace(frame, `"0"%s}}`, `"134217728"%s}}`, 1), keyslots[:strings.Index(keyslots, `,"4000"`)], "", "", refs, ""),
		"requirements":   fmt.Sprintf(frame, "", "", "", "", `,"requirements":{"mandatory":[`+strings.TrimSuffix(strings.Repeat(`"a",`, 60000), ",")+`]}`),
		"repeated names": fmt.Sprintf(frame, "", strings.TrimSuffix(strings.Repeat(`"0":{"type":"x","keyslots":[]},`, 20000), ","), "", "", ""),
		"segments":       fmt.Sprintf(frame, "", "", ","+many(`"1%05d":{"type":"x","offset":"512","size":"512","flags":["backup-x"]},`, 10000), "", ""),
		"long string":    fmt.Sprintf(frame, "", `"0":{"type":"`+strings.Repeat(`\u0061`, 600000)+`","keyslots":[]}`, "", "", ""),
		"depth":          fmt.Sprintf(frame, "", `"0":`+strings.Repeat("[", 1<<20), "", "", ""),
	}
}

// hostileFile writes a header with one of the texts and returns its path.
func hostileFile(t *testing.T, text string) string {
	t.Helper()
	c := newCraft(t, "base")
	c.text, c.size, c.deviceSize = text, maxHeaderSize, 160<<20
	return c.write(t)
}

// countingFile counts what is read of a device.
type countingFile struct {
	storage
	calls, bytes int
}

func (f *countingFile) ReadAt(b []byte, at int64) (int, error) {
	f.calls++
	f.bytes += len(b)
	return f.storage.ReadAt(b, at)
}

// TestHostileDocumentsCostLittle counts what a header takes, accepted or not: calls
// and bytes that are read, memory, and statements that run, which may grow with the
// length of the text only. None of that depends on the machine.
func TestHostileDocumentsCostLittle(t *testing.T) {
	count := statementCounter(t)
	for name, text := range hostileDocuments() {
		path := hostileFile(t, text)
		f, err := openDevice(path, path, false)
		if err != nil {
			t.Fatal(err)
		}
		read := &countingFile{storage: f}
		bytes := allocated(t, func() error {
			if l, err := (validator{}).load(read, f.size); err == nil {
				l.header()
			}
			return nil
		})
		f.close()
		if read.calls > 40 || read.bytes > 12<<20 {
			t.Errorf("%s: %d reads of %d bytes", name, read.calls, read.bytes)
		}
		if bytes > 64<<20 {
			t.Errorf("%s: %d MiB of memory", name, bytes>>20)
		}
		n := count(path)
		t.Logf("%s: %d bytes, %d statements", name, len(text), n)
		if n < 1000 || n > 80*len(text) {
			t.Errorf("%s: %d statements for %d bytes", name, n, len(text))
		}
	}
}

// hostilePath names the file that the test below reads in a process of its own.
const hostilePath = "LUKSMITH_TEST_HOSTILE_HEADER"

// TestReadsTheHeaderThatIsCounted is the process of statementCounter.
func TestReadsTheHeaderThatIsCounted(t *testing.T) {
	path := os.Getenv(hostilePath)
	if path == "" {
		t.Skip("not applicable here: it is run by TestHostileDocumentsCostLittle")
	}
	_ = loadWithout(t, path, "")
}

// statementCounter builds this package's tests with the compiler's counters and
// returns how many statements of this package and its own libraries run to read a
// header.
func statementCounter(t *testing.T) func(path string) int {
	t.Helper()
	dir := t.TempDir()
	binary, profile := filepath.Join(dir, "counted.test"), filepath.Join(dir, "profile")
	testenv.Run(t, "go", "test", "-c", "-covermode=count", "-coverpkg=luksmith/luks2,luksmith/luks2/internal/...", "-o", binary, ".")
	return func(path string) int {
		cmd := exec.Command(binary, "-test.run=^TestReadsTheHeaderThatIsCounted$", "-test.coverprofile="+profile)
		cmd.Env = append(os.Environ(), hostilePath+"="+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(profile)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for line := range strings.Lines(string(b)) {
			var statements, runs int
			if _, numbers, ok := strings.Cut(line, " "); ok {
				_, _ = fmt.Sscan(numbers, &statements, &runs) // the first line has none
				total += statements * runs
			}
		}
		return total
	}
}
