package luks2

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"luksmith/luks2/internal/jsondoc"
)

// memory is a header device in memory.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }
func (m memory) Sync() error                              { return nil }

// fuzzedDevice is large enough for two copies and their key areas; what lies
// behind is not read.
const fuzzedDevice = 64 << 20

// FuzzHeader takes two halves of a device: the binary header, whose checksum is
// put right, and the JSON area.
func FuzzHeader(f *testing.F) {
	for _, name := range []string{"base", "linear", "opal", "reencrypt"} {
		c := newCraft(f, name)
		f.Add(c.copy(0, 0)[:512], c.doc.Bytes(), true)
	}
	f.Add([]byte("LUKS\xba\xbe\x00\x01"), []byte("{}"), false)
	f.Fuzz(func(t *testing.T, head, area []byte, sealed bool) {
		m := make(memory, 32<<10)
		copy(m[:binarySize], head)
		copy(m[binarySize:minHeaderSize-1], area)
		if sealed {
			binaryHeader(m[:binarySize]).seal(m[binarySize:minHeaderSize])
		}
		l, err := validator{}.load(m, fuzzedDevice)
		if err == nil {
			exercise(t, m, l)
		}
	})
}

// FuzzTokens takes the object of all tokens.
func FuzzTokens(f *testing.F) {
	f.Add([]byte(`{"0":{"type":"systemd-tpm2","keyslots":["1"],"tpm2-pcrs":[7]}}`))
	f.Add([]byte(`{"3":{"type":"x","keyslots":[],"z":1.50,"Keyslots":{"a":[null]}},"3":{"type":"y","keyslots":["0"]}}`))
	base, err := os.ReadFile("testdata/rules/base.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tokens []byte) {
		doc, err := jsondoc.Parse(append([]byte(nil), base...))
		if err != nil {
			t.Fatal(err)
		}
		if doc.Set(tokens, "tokens") != nil || len(doc.Bytes()) >= minHeaderSize-binarySize {
			return
		}
		c := &craft{doc: doc, size: minHeaderSize}
		m := memory(append(c.copy(0, 0), c.copy(1, minHeaderSize)...))
		l, err := validator{}.load(m, fuzzedDevice)
		if err == nil {
			exercise(t, m, l)
		}
	})
}

// exercise runs everything that trusts a header which passed the rules.
func exercise(t *testing.T, m memory, l *loaded) {
	h := l.header()
	h.PassphraseOrder()
	for _, k := range h.Keyslots {
		_ = h.KeyslotObstacle(k.ID)
		h.TokensOf(k.ID)
	}
	if h.WriteObstacle() != nil || h.SeqID == 1<<64-1 {
		return
	}
	tx, err := newTx(context.Background(), l, &workshop{})
	if err != nil {
		t.Fatalf("beginning a change: %v", err)
	}
	if !change(t, tx, h) {
		return
	}
	tx.removed = nil // the device has no key areas
	if err := tx.write(&writer{f: m, size: fuzzedDevice, base: l, seqID: h.SeqID}); err != nil {
		t.Fatalf("writing: %v", err)
	}
	again, err := validator{}.load(m, fuzzedDevice)
	if err != nil {
		t.Fatalf("what was written is rejected: %v\n%s", err, tx.final.Bytes())
	}
	if got := again.header(); got.SeqID != h.SeqID+1 || got.Damaged() {
		t.Fatalf("sequence number %d after %d, copies %+v", got.SeqID, h.SeqID, got.Copies)
	}
}

// change adds, replaces and removes, and reports whether the result may be written.
func change(t *testing.T, tx *Tx, h *Header) bool {
	id, err := tx.AddToken(Token{Type: "added", Raw: json.RawMessage(`{"a":1}`)})
	if err == nil {
		err = tx.ReplaceToken(id, Token{Type: "replaced"})
	}
	if err != nil && !strings.Contains(err.Error(), "no space") {
		t.Fatalf("tokens: %v", err)
	}
	for _, token := range h.Tokens {
		if err := tx.RemoveToken(token.ID); err != nil {
			t.Fatalf("removing token %d: %v", token.ID, err)
		}
	}
	for _, k := range h.Keyslots {
		if err := tx.RemoveKeyslot(k.ID); err != nil {
			t.Fatalf("removing keyslot %d: %v", k.ID, err)
		}
	}
	if err := tx.check(); err != nil {
		t.Fatalf("the changed header is invalid: %v\n%s", err, tx.final.Bytes())
	}
	return true
}
