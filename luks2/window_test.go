package luks2

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// around is how many bytes lie before and behind the volume in a windowed file.
const around = 1 << 20

// newWindowVolume is newCrashVolume in the middle of a larger file.
func newWindowVolume(t *testing.T) (v *crashVolume, w Window) {
	t.Helper()
	v, w = newCrashVolume(t), Window{around, crashSize}
	b, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("neighbour"), around/9+1)[:around]
	v.path = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(v.path, append(append(bytes.Clone(junk), b...), junk...), 0o600); err != nil {
		t.Fatal(err)
	}
	if v.d, err = Open(v.path, &OpenOptions{Window: w}); err != nil {
		t.Fatal(err)
	}
	return v, w
}

// inside is the volume of a windowed file, which has to be unchanged around it.
func (v *crashVolume) inside(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte("neighbour"), around/9+1)[:around]
	if len(b) != 2*around+crashSize || !bytes.Equal(b[:around], junk) || !bytes.Equal(b[around+crashSize:], junk) {
		t.Fatal("something was written outside of the window")
	}
	return b[around : around+crashSize]
}

// TestWindowWritesAsOnADevice does in the middle of a file what crash_test.go looks
// at: the same writes, and nothing else. cryptsetup judges the bytes.
func TestWindowWritesAsOnADevice(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	for _, c := range crashCases() {
		if c.damage != nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v, _ := newWindowVolume(t)
			disk := bytes.Clone(v.inside(t))
			r := v.record(t, c.change(v))
			for _, epoch := range r.epochs {
				for _, w := range epoch {
					copy(disk[w.at:], w.data)
				}
			}
			after := v.inside(t)
			if len(r.epochs) != c.fsyncs || !bytes.Equal(after, disk) {
				t.Errorf("%d fsyncs; the bytes are those that were written: %t", len(r.epochs), bytes.Equal(after, disk))
			}
			out := filepath.Join(t.TempDir(), "partition")
			if err := os.WriteFile(out, after, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, passphrase := range c.opens {
				cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--disable-locks", out)
				cmd.Stdin = strings.NewReader(passphrase)
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("cryptsetup with %q: %v: %s", passphrase, err, text)
				}
			}
		})
	}
}

func TestHeaderThatPointsOutOfTheWindowIsRefused(t *testing.T) {
	t.Parallel()
	v, w := newWindowVolume(t)
	for _, short := range []uint64{512, 258048, crashSize - 32<<10, crashSize - 16<<10} {
		d, err := Open(v.path, &OpenOptions{Window: Window{w.Offset, w.Size - short}})
		if err != nil {
			t.Fatal(err)
		}
		if h, err := d.Header(t.Context()); !errorsAsFormat(err) {
			t.Errorf("%d bytes less: %v, %v", short, h, err)
		}
		if err := d.Update(t.Context(), v.enroll("new")); err == nil {
			t.Errorf("%d bytes less: enrolled", short)
		}
	}
	for _, shift := range []uint64{0, 4096, w.Offset + 4096} {
		d, err := Open(v.path, &OpenOptions{Window: Window{shift, w.Size}})
		if err != nil {
			t.Fatal(err)
		}
		if h, err := d.Header(t.Context()); err == nil {
			t.Errorf("from byte %d: %v", shift, h)
		}
	}
	v.inside(t)
}

func errorsAsFormat(err error) bool {
	_, ok := errors.AsType[*FormatError](err)
	return ok
}

func TestWindowOutsideOfTheFile(t *testing.T) {
	t.Parallel()
	v, w := newWindowVolume(t)
	for _, bad := range []Window{{w.Offset, 0}, {w.Offset, 1 << 40}, {1 << 40, 4096}, {1<<64 - 1, 2}, {2*around + crashSize, 1}} {
		d, err := Open(v.path, &OpenOptions{Window: bad})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Header(t.Context()); err == nil {
			t.Errorf("%+v was read", bad)
		}
	}
	if _, err := Open(v.path, &OpenOptions{Window: w, Header: v.path}); err == nil {
		t.Error("a detached header within a window was taken")
	}
}

// TestWindowLocksTheWholeFile: another program that changes the image, of the same
// partition or another one, is waited for.
func TestWindowLocksTheWholeFile(t *testing.T) {
	t.Parallel()
	v, _ := newWindowVolume(t)
	f, err := os.Open(v.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := v.d.Header(ctx); !errors.Is(err, ErrBusy) {
		t.Errorf("read while somebody else writes: %v", err)
	}
}
