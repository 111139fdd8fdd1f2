package luks2_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// TestARehearsalSaysWhatTheUpdateWillSay fills every kind of space and asks both.
func TestARehearsalSaysWhatTheUpdateWillSay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		format func(*luks2.FormatOptions)
		token  int // bytes
		fit    int // how many enrolments fit beside keyslot 0
		what   string
	}{
		{"keyslots", func(o *luks2.FormatOptions) { o.HeaderSize = 64 << 10 }, 10, 31, "keyslots"},
		{"keyslots area", func(o *luks2.FormatOptions) { o.KeyslotsSize = 1 << 20 }, 10, 3, "keyslots area"},
		{"text", func(*luks2.FormatOptions) {}, 3000, 3, "JSON area"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := luks2test.New(t, luks2test.WithFormat(c.format))
			key := unlocked(t, v.Device, v.Passphrase)
			enroll := func(tx *luks2.Tx) error {
				slot, err := tx.AddKeyslot(key, secret.Secret{}, luks2test.FastKDF)
				if err != nil {
					return err
				}
				_, err = tx.AddToken(luks2.Token{Type: "x", Keyslots: []int{slot}, Raw: json.RawMessage(fmt.Sprintf(`{"x":%q}`, strings.Repeat("y", c.token)))})
				return err
			}
			for n := 0; ; n++ {
				left := header(t, v.Device).Space.KeyslotsLeft
				before := readFile(t, v.Path)
				rehearsed := v.Device.Rehearse(t.Context(), enroll)
				if !bytes.Equal(before, readFile(t, v.Path)) {
					t.Fatal("the rehearsal wrote")
				}
				err := v.Device.Update(t.Context(), enroll)
				if (rehearsed == nil) != (err == nil) || err != nil && rehearsed.Error() != err.Error() {
					t.Fatalf("rehearsed: %v, updated: %v", rehearsed, err)
				}
				if c.what != "JSON area" && (left > 0) != (err == nil) {
					t.Errorf("%d left: %v", left, err)
				}
				if err == nil {
					continue
				}
				space, ok := errors.AsType[*luks2.SpaceError](err)
				if n != c.fit || !ok || space.What != c.what || !strings.Contains(space.Hint(), "cryptenroll list DEVICE") {
					t.Errorf("%d fit, then %v", n, err)
				}
				return
			}
		})
	}
}

// TestARehearsalNeedsNoKey: it is for plans, before anybody is asked.
func TestARehearsalNeedsNoKey(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	err := v.Device.Rehearse(t.Context(), func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(nil, secret.Secret{}, luks2.KDF{Type: luks2.KDFArgon2id, Time: 4, MemoryKiB: 1 << 20, Parallel: 4})
		if err == nil && slot != 1 {
			err = fmt.Errorf("keyslot %d", slot)
		}
		return errors.Join(err, tx.RemoveKeyslot(0))
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAFullKeyslotsAreaSaysWhatIsFree, not how large it is.
func TestAFullKeyslotsAreaSaysWhatIsFree(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.KeyslotsSize = 256 << 10 }))
	err := v.Device.Rehearse(t.Context(), func(tx *luks2.Tx) error {
		_, err := tx.AddKeyslot(nil, secret.Secret{}, luks2test.FastKDF)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "the largest free piece of the keyslots area has 4096 bytes, 258048 are needed") {
		t.Error(err)
	}
}

// TestReadingSurvivesAForeignSignature: a partition table or file system that was
// written over the primary copy leaves the secondary. cryptsetup refuses to open some
// of these volumes, for fear of what it would repair.
func TestReadingSurvivesAForeignSignature(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		at   int64
		what string
	}{
		{strings.Repeat("\x90", 440) + "disk\x00\x00" + strings.Repeat("\x00", 64) + "\x55\xaa", 0, "a partition table or boot sector"},
		{"\x53\xef", 0x438, "ext2/3/4"},
		{"XFSB", 0, "XFS"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			v := luks2test.New(t)
			writeAt(t, v.Path, []byte(c.name), c.at)
			before := readFile(t, v.Path)
			h := header(t, v.Device)
			if h.Foreign != c.what || !h.Damaged() || h.UUID != v.UUID {
				t.Errorf("foreign %q, damaged %v", h.Foreign, h.Damaged())
			}
			if !v.Opens(t, v.Passphrase) {
				t.Error("not opened from the secondary copy")
			}
			err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return tx.SetLabel("x", "") })
			if !errors.Is(err, luks2.ErrSignature) || !errors.Is(h.WriteObstacle(), luks2.ErrSignature) || !bytes.Equal(before, readFile(t, v.Path)) {
				t.Errorf("written: %v", err)
			}
		})
	}
}

// TestAMemberOfAnotherDeviceIsNotLookedBehind, as cryptsetup does not.
func TestAMemberOfAnotherDeviceIsNotLookedBehind(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	writeAt(t, v.Path, []byte("LABELONE"), 512)
	if _, err := v.Device.Header(t.Context()); !errors.Is(err, luks2.ErrSignature) {
		t.Error(err)
	}
}

// TestAReencryptionThatHasBegun is told for each keyslot, in cryptsetup's terms, and
// not copied into a backup.
func TestAReencryptionThatHasBegun(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.KeyslotsSize = 2 << 20 }))
	testenv.Run(t, "cryptsetup", "reencrypt", "--init-only", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", keyFile(t, v.Passphrase), v.Path)
	h := header(t, v.Device)
	if !h.Reencrypting() || len(h.Keyslots) != 3 {
		t.Fatalf("%d keyslots", len(h.Keyslots))
	}
	for slot, want := range []string{"old key", "new key, unbound", "how far the re-encryption is"} {
		if err := h.KeyslotObstacle(slot); !errors.Is(err, luks2.ErrRequirement) || !strings.Contains(err.Error(), want) {
			t.Errorf("keyslot %d: %v", slot, err)
		}
	}
	err := v.Device.Backup(t.Context(), filepath.Join(t.TempDir(), "copy"))
	if r, ok := errors.AsType[*luks2.RequirementError](err); !ok || !strings.Contains(r.Hint(), "--resume-only") {
		t.Errorf("backup: %v", err)
	}
}
