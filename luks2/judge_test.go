package luks2

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"luksmith/luks2/secret"
)

// reading is what a Device makes of the header that stands there.
func reading(t *testing.T, d *Device) *loaded {
	t.Helper()
	s, l, err := d.beginReading(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.end()
	return l
}

// TestTheSameHeaderIsJudgedOnce, and a changed one again, wherever it was changed.
func TestTheSameHeaderIsJudgedOnce(t *testing.T) {
	t.Parallel()
	path := newCraft(t, "base").write(t)
	d, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := reading(t, d)
	if reading(t, d) != first {
		t.Error("the same bytes are judged again")
	}
	for name, at := range map[string]int64{"the checksum of the primary": offCsum, "the text of the secondary": minHeaderSize + binarySize + 8} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		was := make([]byte, 1)
		f.ReadAt(was, at)
		f.WriteAt([]byte{was[0] ^ 1}, at)
		if l := reading(t, d); l == first || !l.damaged() {
			t.Errorf("%s is damaged: not seen", name)
		} else if reading(t, d) == l {
			t.Errorf("%s is damaged: what else stands there is not looked at again", name)
		}
		f.WriteAt(was, at)
		f.Close()
		if l := reading(t, d); l.damaged() {
			t.Errorf("%s is whole again: not seen", name)
		}
	}
	if err := os.Truncate(path, 120<<20); err != nil {
		t.Fatal(err)
	}
	if l := reading(t, d); l == first || l.whole.size != 120<<20 {
		t.Error("a device of another size is not judged again")
	}
}

// TestTheRestOfTheAreaIsZero names the first byte that is not.
func TestTheRestOfTheAreaIsZero(t *testing.T) {
	t.Parallel()
	for behind, want := range map[string]string{"": "", "\x00\x00": "", "\x00\x00x": "0x78", "\x00y": "0x79"} {
		c := newCraft(t, "base")
		c.behind = behind
		d, err := Open(c.write(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Header(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q behind the text: %v", behind, err)
		}
	}
}

// TestAHeaderIsDecodedOnce for the keyslots that are tried in it, and is not changed.
func TestAHeaderIsDecodedOnce(t *testing.T) {
	t.Parallel()
	d, err := Open(newCraft(t, "base").write(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := secret.Copy([]byte("wrong"))
	defer wrong.Wipe()
	var first *Header
	for range 2 {
		if _, err := d.OpenKeyslot(t.Context(), AnySlot, wrong); !errors.Is(err, ErrNoKey) {
			t.Fatal(err)
		}
		if first == nil {
			first = d.last.decoded
		}
		if first == nil || d.last.decoded != first {
			t.Error("the header was decoded again")
		}
	}
	given, err := d.Header(t.Context())
	if err != nil || given == first || !reflect.DeepEqual(given, first) {
		t.Errorf("%v: callers get another header than the one that is kept: %+v", err, given)
	}
}
