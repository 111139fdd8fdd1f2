package luks2

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"luksmith/luks2/internal/jsondoc"
)

// allocated is how many bytes a call allocates: a count of how often a document
// is read, which does not depend on the machine.
func allocated(t *testing.T, call func() error) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := call(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestWritingAHostileHeaderReadsItAFewTimes, however many leftovers of another KDF
// or tokens of one keyslot it has: each was a reading of its own.
func TestWritingAHostileHeaderReadsItAFewTimes(t *testing.T) {
	const count = 12000
	c := newCraft(t, "base")
	var leftovers, tokens strings.Builder
	alone, ids := make(map[string]bool), []int(nil)
	for i := range count {
		fmt.Fprintf(&leftovers, `"x%d":1,`, i)
		fmt.Fprintf(&tokens, `"%d":{"type":"x","keyslots":["1"]},`, 100+i)
		alone[name(100+i)] = true
		ids = append(ids, 100+i)
	}
	if err := c.doc.Set([]byte("{"+strings.TrimSuffix(tokens.String(), ",")+"}"), "tokens"); err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Replace(string(c.doc.Bytes()), `"kdf":{`, `"kdf":{`+leftovers.String(), 1))
	var doc *jsondoc.Doc
	once := allocated(t, func() (err error) { doc, err = jsondoc.Parse(text); return err })
	if doc.Root().At("keyslots", "0", "kdf").Len() < count {
		t.Fatal("the leftovers are not where they should be")
	}
	if n := allocated(t, func() error { return dropLeftovers(doc) }); n > 10*once {
		t.Errorf("leftovers: %d bytes, a reading takes %d", n, once)
	}
	if doc.Root().At("keyslots", "0", "kdf").Len() > 5 {
		t.Error("leftovers stay")
	}
	if n := allocated(t, func() error { return renumber(doc.Clone(), "0", "7") }); n > 10*once {
		t.Errorf("another number: %d bytes, a reading takes %d", n, once)
	}
	copied := doc.Clone()
	if n := allocated(t, func() error { return dropTokens(copied, ids) }); n > 10*once {
		t.Errorf("orphans: %d bytes, a reading takes %d", n, once)
	}
	if copied.Root().Get("tokens").Len() != 0 {
		t.Error("orphans stay")
	}
	if n := allocated(t, func() error { return forgetKeyslot(doc, "1", alone) }); n > 10*once {
		t.Errorf("tokens: %d bytes, a reading takes %d", n, once)
	}
	if doc.Root().Get("tokens").Len() != 0 || doc.Root().At("keyslots", "1").Kind() != jsondoc.Missing {
		t.Error("tokens or keyslot stay")
	}
}

// TestACancelledChangeEndsBetweenItsSteps however long the function goes on.
func TestACancelledChangeEndsBetweenItsSteps(t *testing.T) {
	t.Parallel()
	d := crafted(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Update(ctx, func(tx *Tx) error {
		cancel()
		return tx.RemoveKeyslot(1)
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
