package luks2_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// update runs a change and fails the test if it does.
func update(t *testing.T, d *luks2.Device, fn func(*luks2.Tx) error) {
	t.Helper()
	if err := d.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func header(t *testing.T, d *luks2.Device) *luks2.Header {
	t.Helper()
	h, err := d.Header(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// unlocked returns the volume key, wiped with the test.
func unlocked(t *testing.T, d *luks2.Device, text string) *luks2.VolumeKey {
	t.Helper()
	passphrase := secret.Copy([]byte(text))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(key.Wipe)
	return key
}

func text(t *testing.T, s string) secret.Secret {
	t.Helper()
	x := secret.Copy([]byte(s))
	t.Cleanup(x.Wipe)
	return x
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeAt(t *testing.T, path string, b []byte, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

func TestRewriteChangesSequenceNumberAndChecksumOnly(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithLabel("a label"))
	before := readFile(t, v.Path)
	update(t, v.Device, func(tx *luks2.Tx) error { tx.Rewrite(); return nil })
	after := readFile(t, v.Path)
	for _, at := range []int{0, 0x4000} {
		for _, field := range [][2]int{{0x10, 0x18}, {0x1c0, 0x200}} { // seqid, csum
			if bytes.Equal(before[at+field[0]:at+field[1]], after[at+field[0]:at+field[1]]) {
				t.Errorf("copy at %#x: bytes %#x..%#x are as before", at, field[0], field[1])
			}
			copy(after[at+field[0]:at+field[1]], before[at+field[0]:at+field[1]])
		}
	}
	if !bytes.Equal(before, after) {
		t.Error("something else changed")
	}
}

func TestAnUpdateWithoutChangesWritesNothing(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	before := readFile(t, v.Path)
	update(t, v.Device, func(*luks2.Tx) error { return nil })
	failed := errors.New("no")
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { tx.Rewrite(); return failed }); !errors.Is(err, failed) {
		t.Errorf("error of the function comes back as %v", err)
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
}

func TestKeyslotAndTokenAreOneSequenceNumber(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	before := header(t, v.Device)
	slot := v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
	h := header(t, v.Device)
	if h.SeqID != before.SeqID+1 {
		t.Errorf("sequence number went from %d to %d", before.SeqID, h.SeqID)
	}
	want := []luks2.Token{{ID: 0, Type: "systemd-recovery", Keyslots: []int{slot}, Raw: json.RawMessage(`{"type":"systemd-recovery","keyslots":["1"]}`)}}
	if diff := cmp.Diff(want, h.TokensOf(slot)); diff != "" {
		t.Error(diff)
	}
	key := unlocked(t, v.Device, "second")
	if key.Slot != slot || hex.EncodeToString(key.Key.Bytes()) != v.VolumeKey {
		t.Error("the new keyslot gives another key")
	}
	k, _ := h.Keyslot(slot)
	wantSlot := &luks2.Keyslot{
		ID: slot, Type: "luks2", KeySize: 64, Priority: luks2.PriorityNormal, Digest: 0,
		AF:   luks2.AF{Type: "luks1", Hash: "sha512", Stripes: 4000},
		Area: luks2.Area{Type: "raw", Encryption: "aes-xts-plain64", KeySize: 64, Offset: 32768 + 258048, Size: 258048},
		KDF:  luks2.KDF{Type: luks2.KDFPBKDF2, Hash: "sha512", Iterations: 1000, Salt: k.KDF.Salt},
	}
	if diff := cmp.Diff(wantSlot, k); diff != "" {
		t.Error(diff)
	}
}

// TestUnknownMembersSurvive has the spellings that encoding/json and json-c lose.
func TestUnknownMembersSurvive(t *testing.T) {
	t.Parallel()
	const odd = `{"type":"x","keyslots":[],"z":1.50,"Keyslots":{"a":[null]}, "é\/\u00e9" : -0E+2}`
	v := luks2test.New(t, luks2test.WithToken(luks2.Token{Raw: json.RawMessage(odd)}))
	v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
	update(t, v.Device, func(tx *luks2.Tx) error {
		if err := tx.RemoveKeyslot(1); err != nil {
			return err
		}
		return tx.SetPriority(0, luks2.PriorityPrefer)
	})
	if token, _ := header(t, v.Device).Token(0); string(token.Raw) != odd {
		t.Errorf("token is now %s", token.Raw)
	}
}

func TestRemovedKeyslotIsGone(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	slot := v.Enroll(t, "second", luks2.Token{Type: "systemd-recovery"})
	old := header(t, v.Device)
	k, _ := old.Keyslot(slot)
	stale := readFile(t, v.Path)[:0x4000]
	update(t, v.Device, func(tx *luks2.Tx) error {
		if err := tx.RemoveKeyslot(slot); err != nil {
			return err
		}
		return tx.RemoveToken(0)
	})
	h := header(t, v.Device)
	if _, ok := h.Keyslot(slot); ok || len(h.Tokens) != 0 || len(h.Digests[0].Keyslots) != 1 {
		t.Errorf("the header still has the keyslot, its token or its place in the digest: %+v", h)
	}
	if h.SeqID != old.SeqID+1 {
		t.Errorf("sequence number went from %d to %d", old.SeqID, h.SeqID)
	}

	// The copy from before the wipe comes back: the newer one counts, and even
	// without it the area is unreadable.
	writeAt(t, v.Path, stale, 0)
	if _, ok := header(t, v.Device).Keyslot(slot); ok {
		t.Error("a stale primary copy brings the keyslot back")
	}
	writeAt(t, v.Path, make([]byte, 512), 0x4000)
	if _, ok := header(t, v.Device).Keyslot(slot); !ok {
		t.Fatal("the test does not put the stale copy in place")
	}
	if v.Opens(t, "second") {
		t.Error("the wiped keyslot opens")
	}
	if !v.Opens(t, v.Passphrase) {
		t.Error("the other keyslot does not open")
	}
	if area := readFile(t, v.Path)[k.Area.Offset:][:k.Area.Size]; bytes.Contains(area, make([]byte, 64)) {
		t.Error("the area was not overwritten with random data to its end")
	}
}

func TestAddAndRemoveInOneUpdate(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	v.Enroll(t, "old", luks2.Token{Type: "systemd-tpm2"})
	key := unlocked(t, v.Device, v.Passphrase)
	passphrase := text(t, "new")
	before := header(t, v.Device).SeqID
	update(t, v.Device, func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(key, passphrase, luks2.MinimalKDF)
		if err != nil {
			return err
		}
		if err := tx.ReplaceToken(0, luks2.Token{Type: "systemd-tpm2", Keyslots: []int{slot}}); err != nil {
			return err
		}
		if err := tx.RemoveKeyslot(slot); err == nil {
			t.Error("a keyslot can be removed in the transaction that adds it")
		}
		return tx.RemoveKeyslot(1)
	})
	h := header(t, v.Device)
	if h.SeqID != before+2 {
		t.Errorf("sequence number grew by %d, want 2", h.SeqID-before)
	}
	if len(h.Tokens) != 1 || len(h.TokensOf(2)) != 1 || len(h.Keyslots) != 2 {
		t.Errorf("tokens %+v, keyslots %+v", h.Tokens, h.Keyslots)
	}
	if !v.Opens(t, "new") || v.Opens(t, "old") || !v.Opens(t, v.Passphrase) {
		t.Error("not exactly the new and the first passphrase open")
	}
}

func TestLabelAndPriority(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	update(t, v.Device, func(tx *luks2.Tx) error {
		if err := tx.SetPriority(0, luks2.PriorityIgnore); err != nil {
			return err
		}
		return tx.SetLabel("name", "sub")
	})
	h := header(t, v.Device)
	if h.Label != "name" || h.Subsystem != "sub" || h.Keyslots[0].Priority != luks2.PriorityIgnore {
		t.Errorf("%q %q %+v", h.Label, h.Subsystem, h.Keyslots[0])
	}
	if len(h.PassphraseOrder()) != 0 || v.Opens(t, v.Passphrase) {
		t.Error("a keyslot of priority 0 is tried without being asked for")
	}
	key, err := v.Device.OpenKeyslot(t.Context(), 0, text(t, v.Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	key.Wipe()
	update(t, v.Device, func(tx *luks2.Tx) error { return tx.SetPriority(0, luks2.PriorityNormal) })
	if bytes.Contains(readFile(t, v.Path)[:0x8000], []byte("priority")) {
		t.Error("the normal priority is written out")
	}
	for _, bad := range []string{strings.Repeat("x", 48), "a\x00b"} {
		err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return tx.SetLabel(bad, "") })
		if err == nil {
			t.Errorf("label %q is taken", bad)
		}
	}
}

func TestDamagedCopiesAreRepairedByWritingOnly(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, path string){
		"primary zeroed":     func(t *testing.T, path string) { writeAt(t, path, make([]byte, 0x4000), 0) },
		"primary bit":        func(t *testing.T, path string) { writeAt(t, path, []byte{0xff}, 0x1100) },
		"secondary zeroed":   func(t *testing.T, path string) { writeAt(t, path, make([]byte, 0x4000), 0x4000) },
		"secondary bad JSON": func(t *testing.T, path string) { writeAt(t, path, []byte("x"), 0x5000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := luks2test.New(t)
			damage(t, v.Path)
			before := readFile(t, v.Path)
			if !header(t, v.Device).Damaged() || !v.Opens(t, v.Passphrase) {
				t.Error("damage unseen, or the volume does not open")
			}
			if !bytes.Equal(before, readFile(t, v.Path)) {
				t.Error("reading wrote")
			}
			update(t, v.Device, func(tx *luks2.Tx) error { return tx.SetLabel("repaired", "") })
			h := header(t, v.Device)
			if h.Damaged() || h.Label != "repaired" || !v.Opens(t, v.Passphrase) {
				t.Errorf("not repaired: %+v", h.Copies)
			}
			b := readFile(t, v.Path)
			if bytes.Equal(b[0x68:0xa8], b[0x4068:0x40a8]) {
				t.Error("both copies have one salt")
			}
		})
	}
}

func TestAForeignSignatureIsNotOverwritten(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	writeAt(t, v.Path, []byte("\x53\xef"), 0x438) // ext4 over the primary copy
	before := readFile(t, v.Path)
	err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { tx.Rewrite(); return nil })
	if !errors.Is(err, luks2.ErrSignature) || !strings.Contains(err.Error(), "ext") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(before, readFile(t, v.Path)) {
		t.Error("the file changed")
	}
}
