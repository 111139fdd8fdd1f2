package luks2

import (
	"bytes"
	"crypto/sha256"
	"math"
	"os"
	"path/filepath"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// A crash may leave any part of what was written since the last fsync on the disk,
// in sectors of 512 bytes, and nothing of what comes later. The tests record what
// an Update writes and look at all such states of the disk.

// write is one recorded write.
type write struct {
	at   int64
	data []byte
}

// recorder notes the writes between two fsyncs, epoch by epoch.
type recorder struct {
	storage
	epochs [][]write
	open   []write
}

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.open = append(r.open, write{off, bytes.Clone(p)})
	return r.storage.WriteAt(p, off)
}

func (r *recorder) Sync() error {
	r.epochs = append(r.epochs, r.open)
	r.open = nil
	return r.storage.Sync()
}

// crashVolume is a volume with keyslot 0 and a token with keyslot 1.
type crashVolume struct {
	d    *Device
	path string
	key  *VolumeKey
}

// crashSize holds the headers and areas for six keyslots.
const crashSize = 32<<10 + 6*258048

func newCrashVolume(t *testing.T) *crashVolume {
	t.Helper()
	v := &crashVolume{path: filepath.Join(t.TempDir(), "volume.img")}
	first := secret.Copy([]byte("first"))
	defer first.Wipe()
	var err error
	v.d, err = Format(t.Context(), v.path, &FormatOptions{
		Passphrase: first, KDF: MinimalKDF, CreateSize: crashSize, DataOffset: crashSize, KeyslotsSize: crashSize - 32<<10,
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.key, err = v.d.OpenKeyslot(t.Context(), 0, first); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.key.Wipe)
	if err := v.d.Update(t.Context(), v.enroll("old")); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *crashVolume) enroll(passphrase string) func(*Tx) error {
	return func(tx *Tx) error {
		text := secret.Copy([]byte(passphrase))
		defer text.Wipe()
		slot, err := tx.AddKeyslot(v.key, text, MinimalKDF)
		if err != nil {
			return err
		}
		_, err = tx.AddToken(Token{Type: "x", Keyslots: []int{slot}})
		return err
	}
}

func wipeOld(tx *Tx) error {
	if err := tx.RemoveKeyslot(1); err != nil {
		return err
	}
	return tx.RemoveToken(0)
}

// crashCase is a command whose writes are replayed.
type crashCase struct {
	name   string
	damage func(t *testing.T, path string)
	change func(v *crashVolume) func(*Tx) error
	opens  []string // what opens before and after
	fsyncs int
}

func crashCases() []crashCase {
	return []crashCase{
		{"enrol", nil, func(v *crashVolume) func(*Tx) error { return v.enroll("new") }, []string{"first", "old"}, 3},
		{"enrol three at once", nil, func(v *crashVolume) func(*Tx) error {
			return func(tx *Tx) error { return firstError(v.enroll("a")(tx), v.enroll("b")(tx), v.enroll("c")(tx)) }
		}, []string{"first", "old"}, 3},
		{"wipe", nil, func(*crashVolume) func(*Tx) error { return wipeOld }, []string{"first"}, 3},
		{"enrol and wipe", nil, func(v *crashVolume) func(*Tx) error {
			return func(tx *Tx) error { return firstError(v.enroll("new")(tx), wipeOld(tx)) }
		}, []string{"first"}, 6},
		{"replace", nil, func(v *crashVolume) func(*Tx) error { return v.replace }, []string{"first"}, 6},
		{"replace under the old number", nil, func(v *crashVolume) func(*Tx) error {
			return func(tx *Tx) error { return firstError(v.enroll("new")(tx), wipeOld(tx), tx.TakeNumber(2, 1)) }
		}, []string{"first"}, 6},
		{"label", nil, func(*crashVolume) func(*Tx) error { return setLabel }, []string{"first", "old"}, 2},
		{"repair primary", zeroAt(0), func(*crashVolume) func(*Tx) error { return setLabel }, []string{"first", "old"}, 2},
		{"repair secondary", zeroAt(16 << 10), func(*crashVolume) func(*Tx) error { return setLabel }, []string{"first", "old"}, 2},
		// Many sectors of the good copy change, so that a tear there would show.
		{"enrol over a damaged primary", zeroAt(0), func(v *crashVolume) func(*Tx) error { return v.enroll("new") }, []string{"first", "old"}, 3},
		{"enrol over a damaged secondary", zeroAt(16 << 10), func(v *crashVolume) func(*Tx) error { return v.enroll("new") }, []string{"first", "old"}, 3},
	}
}

// replace moves the token to a new keyslot and removes the old one.
func (v *crashVolume) replace(tx *Tx) error {
	text := secret.Copy([]byte("new"))
	defer text.Wipe()
	slot, err := tx.AddKeyslot(v.key, text, MinimalKDF)
	if err != nil {
		return err
	}
	return firstError(tx.ReplaceToken(0, Token{Type: "x", Keyslots: []int{slot}}), tx.RemoveKeyslot(1))
}

func setLabel(tx *Tx) error { return tx.SetLabel("label", "") }

func zeroAt(offset int64) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(make([]byte, 4096), offset); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryCrashLeavesAVolumeThatOpens looks at every prefix of the writes, torn
// at every 512 bytes, and at reorderings of the sectors within an epoch: what
// opens before and after opens in between, and no keyslot that was enrolled with
// a token stands without one.
func TestEveryCrashLeavesAVolumeThatOpens(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	for _, c := range crashCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := newCrashVolume(t)
			if c.damage != nil {
				c.damage(t, v.path)
			}
			before, err := os.ReadFile(v.path)
			if err != nil {
				t.Fatal(err)
			}
			r := v.record(t, c.change(v))
			if len(r.epochs) != c.fsyncs || len(r.open) != 0 {
				t.Errorf("%d fsyncs, want %d; %d writes behind the last", len(r.epochs), c.fsyncs, len(r.open))
			}
			x := &crashChecker{t: t, c: c, opened: make(map[[sha256.Size]byte]bool)}
			if err := x.replay(before, r.epochs); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d of them opened by cryptsetup", x.states, x.sampled)
			after, err := os.ReadFile(v.path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(after, x.disk) {
				t.Error("the replay does not end where the update did")
			}
		})
	}
}

// record runs an update and returns what it wrote.
func (v *crashVolume) record(t *testing.T, change func(*Tx) error) *recorder {
	t.Helper()
	var r *recorder
	v.d.observe = func(s storage) storage { r = &recorder{storage: s}; return r }
	if err := v.d.Update(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	return r // of the last session, which is the one that wrote
}

// TestAWipeOverwritesBeforeItDrops: a crash in between leaves a dead keyslot in
// the header, so that the wipe can be repeated, rather than key material that
// nothing points to.
func TestAWipeOverwritesBeforeItDrops(t *testing.T) {
	t.Parallel()
	v := newCrashVolume(t)
	before, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	first := v.record(t, wipeOld).epochs[0]
	disk := memory(bytes.Clone(before))
	copy(disk[first[0].at:], first[0].data)
	l, err := validator{}.load(disk, uint64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	h := l.header()
	if _, ok := h.Keyslot(1); !ok {
		t.Error("the keyslot is gone from the header before its area is overwritten")
	}
	x := &crashChecker{t: t, opened: make(map[[sha256.Size]byte]bool)}
	if x.opens(disk, h, "old") || !x.opens(disk, h, "first") {
		t.Error("the old passphrase opens, or the other does not")
	}
}

// changeCopies changes both header copies of an image and puts their checksums right.
func changeCopies(image []byte, change func(c []byte)) {
	for at := 0; at < firstRead; at += minHeaderSize {
		c := image[at : at+minHeaderSize]
		change(c)
		binaryHeader(c[:binarySize]).seal(c[binarySize:])
	}
}

// TestSequenceNumberEndsBeforeAnythingIsWritten: an enrolment with a wipe takes two
// numbers. A stop between them would leave a keyslot whose area is overwritten.
func TestSequenceNumberEndsBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	v := newCrashVolume(t)
	image, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	changeCopies(image, func(c []byte) { copy(c[offSeqID:], bigEndian(math.MaxUint64-1)) })
	if err := os.WriteFile(v.path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.d.Update(t.Context(), v.replace); err == nil {
		t.Error("a second header was written behind the last number")
	}
	if now, _ := os.ReadFile(v.path); !bytes.Equal(now, image) {
		t.Error("an update that was refused has written")
	}
	if err := v.d.Update(t.Context(), setLabel); err != nil {
		t.Errorf("one header with the last number: %v", err)
	}
}
