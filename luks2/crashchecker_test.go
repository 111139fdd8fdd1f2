package luks2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// crashChecker replays a recording and judges states of the disk.
type crashChecker struct {
	t       *testing.T
	c       crashCase
	disk    memory // with all complete epochs
	states  int
	sampled int
	opened  map[[sha256.Size]byte]bool // results by keyslot, area and passphrase
}

func (x *crashChecker) replay(before []byte, epochs [][]write) error {
	x.disk = bytes.Clone(before)
	for _, epoch := range epochs {
		sectors := 0
		for _, w := range epoch {
			sectors += (len(w.data) + sectorSize - 1) / sectorSize
		}
		for _, arrived := range partial(sectors) {
			if err := x.check(epoch, arrived); err != nil {
				return err
			}
		}
		for _, w := range epoch {
			copy(x.disk[w.at:], w.data)
		}
		if err := x.judge(x.disk); err != nil {
			return err
		}
	}
	return nil
}

// partial returns ways in which n sectors may have reached the disk: every prefix,
// one of them too early or too late, and any of them in 64 ways.
func partial(n int) []func(sector int) bool {
	var list []func(int) bool
	for torn := range n {
		list = append(list, func(sector int) bool { return sector < torn })
	}
	for only := range min(n, 40) {
		list = append(list, func(sector int) bool { return sector == only }, func(sector int) bool { return sector != only })
	}
	random := rand.New(rand.NewPCG(uint64(n), 7)) // the same in every run
	for range 64 {
		list = append(list, func(int) bool { return random.IntN(2) == 0 })
	}
	return list
}

// check judges the disk with some sectors of what was written since the last fsync on
// it.
func (x *crashChecker) check(epoch []write, arrived func(sector int) bool) error {
	disk, sector := bytes.Clone(x.disk), 0
	for _, w := range epoch {
		for from := 0; from < len(w.data); from += sectorSize {
			if arrived(sector) {
				copy(disk[w.at+int64(from):], w.data[from:min(from+sectorSize, len(w.data))])
			}
			sector++
		}
	}
	return x.judge(disk)
}

func (x *crashChecker) judge(disk memory) error {
	x.states++
	l, err := validator{}.load(disk, uint64(len(disk)))
	if err != nil {
		return fmt.Errorf("state %d: %w", x.states, err)
	}
	h := l.header()
	for _, k := range h.Keyslots {
		if k.ID != 0 && len(h.TokensOf(k.ID)) == 0 {
			return fmt.Errorf("state %d: no token names keyslot %d", x.states, k.ID)
		}
	}
	for _, passphrase := range x.c.opens {
		if !x.opens(disk, h, passphrase) {
			return fmt.Errorf("state %d: %q does not open", x.states, passphrase)
		}
	}
	if x.states%97 == 1 {
		x.sample(disk)
	}
	return nil
}

// opens tries a passphrase on all keyslots, each once for every content.
func (x *crashChecker) opens(disk memory, h *Header, passphrase string) bool {
	for _, k := range h.Keyslots {
		sum := sha256.New()
		fmt.Fprintf(sum, "%s %+v", passphrase, k)
		sum.Write(disk[k.Area.Offset : k.Area.Offset+k.Area.Size])
		id := [sha256.Size]byte(sum.Sum(nil))
		if _, known := x.opened[id]; !known {
			text := secret.Copy([]byte(passphrase))
			key, err := h.tryKeyslot(context.Background(), room{storage: disk}, k.ID, text)
			if err == nil {
				key.Wipe()
			}
			text.Wipe()
			x.opened[id] = err == nil
		}
		if x.opened[id] {
			return true
		}
	}
	return false
}

// sample lets cryptsetup judge a copy of a state, in the way it does at boot: it
// repairs while it reads.
func (x *crashChecker) sample(disk memory) {
	testenv.Need(x.t, "cryptsetup")
	dir := x.t.TempDir()
	path, key := filepath.Join(dir, "volume.img"), filepath.Join(dir, "key")
	for file, content := range map[string][]byte{path: disk, key: []byte(x.c.opens[0])} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			x.t.Fatal(err)
		}
	}
	if err := os.Truncate(path, crashSize+1<<20); err != nil {
		x.t.Fatal(err)
	}
	out, err := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file", key, path).CombinedOutput()
	if err != nil {
		x.t.Fatalf("state %d: cryptsetup: %v\n%s", x.states, err, out)
	}
	x.sampled++
}

// TestTheCrashCheckerSeesABadOrder replays a repair that begins with the copy
// that is still good: torn there, no copy is left.
func TestTheCrashCheckerSeesABadOrder(t *testing.T) {
	t.Parallel()
	v := newCrashVolume(t)
	zeroAt(0)(t, v.path)
	before, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	r := v.record(t, v.enroll("new"))
	slices.Reverse(r.epochs[1:]) // the header copies
	x := &crashChecker{t: t, c: crashCase{opens: []string{"first"}}, opened: make(map[[sha256.Size]byte]bool)}
	if err := x.replay(before, r.epochs); err == nil {
		t.Error("nothing was found wrong")
	}
}
