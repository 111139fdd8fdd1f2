package luks2

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
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

// TestHostileDocumentsCostLittle: below 2 s and 64 MiB each, accepted or not.
func TestHostileDocumentsCostLittle(t *testing.T) {
	for name, text := range hostileDocuments() {
		c := newCraft(t, "base")
		c.text, c.size, c.deviceSize = text, maxHeaderSize, 160<<20
		path := c.write(t)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		err := loadWithout(t, path, "")
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%s, %d bytes: %v, %d MiB, %v", name, len(text), took.Round(time.Millisecond), allocated, err)
		if took > 2*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if allocated > 64 {
			t.Errorf("%s took %d MiB", name, allocated)
		}
	}
}
