package bootrecord

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const laterBoot = "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a02"

func imageDigest(n byte) Digest { return bytes.Repeat([]byte{n}, 32) }

// seen is a look in a boot that shows images by the first byte of their digests.
func seen(boot string, places int, images ...byte) *Seen {
	s := &Seen{Boot: boot, Places: places}
	for _, n := range images {
		s.Images = append(s.Images, Image{Entry: "e", Digest: imageDigest(n)})
	}
	return s
}

func TestWhatCameUnwatchedIsDoubtful(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		was, now *Seen
		want     []byte // in doubt
	}{
		"nobody looked before":    {nil, seen(bootID, 1, 1, 2), nil},
		"new in the same boot":    {seen(bootID, 1, 1), seen(bootID, 1, 1, 2), nil},
		"new in another boot":     {seen(bootID, 1, 1), seen(laterBoot, 1, 1, 2), []byte{2}},
		"from another partition":  {seen(bootID, 1, 1), seen(bootID, 2, 1, 2), []byte{2}},
		"partition gone":          {seen(bootID, 2, 1, 2), seen(bootID, 1, 1, 3), nil},
		"an old image comes back": {seen(bootID, 1, 1), seen(laterBoot, 1, 3), []byte{3}},
	} {
		c.now.Look(c.was)
		var got []byte
		for _, i := range c.now.Images {
			if c.now.Doubtful(i.Digest) {
				got = append(got, i.Digest[0])
			}
		}
		if !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	first := seen(laterBoot, 1, 1, 2)
	first.Look(seen(bootID, 1, 1))
	again := seen(laterBoot, 1, 1, 2)
	if again.Look(first); !again.Doubtful(imageDigest(2)) {
		t.Error("the doubt was forgotten in the same boot")
	}
	again.Accept()
	third := seen(bootID, 1, 2)
	if third.Look(again); third.Doubtful(imageDigest(2)) {
		t.Error("what was accepted is in doubt again")
	}
}

func TestSeenComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if s, err := ReadSeen(root); s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	s := seen(bootID, 1, 1, 2)
	s.Images[1].Doubtful = true
	if err := s.Write(root); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSeen(root); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []*Seen{seen("x", 1), seen(bootID, -1), seen(bootID, 1, make([]byte, maxImages+1)...), {Images: []Image{{Digest: Digest{1}}}}} {
		if err := bad.Write(root); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	path := filepath.Join(root, "var/lib/luksmith/entries.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"images":[{"digest":"00"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSeen(root); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}
