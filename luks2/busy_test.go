package luks2_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// hold takes the exclusive lock of an image as libcryptsetup does, with flock(1),
// in another process, and returns when it is held.
func hold(t *testing.T, path string, d time.Duration) {
	t.Helper()
	testenv.Need(t, "flock")
	cmd := exec.Command("flock", path, "sh", "-c", fmt.Sprintf("echo held; exec sleep %.3f", d.Seconds()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
}

func TestALockHeldElsewhereIsWaitedFor(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	hold(t, v.Path, 3*time.Second)
	start := time.Now()
	update(t, v.Device, func(tx *luks2.Tx) error { return tx.SetLabel("x", "") })
	if waited := time.Since(start); waited < 2*time.Second {
		t.Errorf("the lock was not waited for: %v", waited)
	}
	if header(t, v.Device).Label != "x" {
		t.Error("nothing was written")
	}
}

func TestAContextEndsTheWaitForTheLock(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	hold(t, v.Path, time.Minute)
	for name, op := range map[string]func(context.Context) error{
		"update": func(ctx context.Context) error {
			return v.Device.Update(ctx, func(tx *luks2.Tx) error { return tx.SetLabel("x", "") })
		},
		"header": func(ctx context.Context) error { _, err := v.Device.Header(ctx); return err },
		"open": func(ctx context.Context) error {
			_, err := v.Device.OpenKeyslot(ctx, luks2.AnySlot, secret.Secret{})
			return err
		},
		"backup": func(ctx context.Context) error { return v.Device.Backup(ctx, filepath.Join(t.TempDir(), "b")) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		err := op(ctx)
		cancel()
		if !errors.Is(err, luks2.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// flock has this process hold the lock of an image.
func flock(t *testing.T, path string, mode int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.Flock(int(f.Fd()), mode); err != nil {
		t.Fatal(err)
	}
}

// TestLockIsWaitedForAsLongAsIsSaid: a program that never ends keeps nobody for ever,
// who is told why before.
func TestLockIsWaitedForAsLongAsIsSaid(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	flock(t, v.Path, unix.LOCK_EX)
	var told []string
	ctx := luks2.WithLockWait(t.Context(), luks2.LockWait{Notice: func(what string) func() { told = append(told, what); return func() { told = append(told, "done") } }, Limit: 1100 * time.Millisecond})
	_, err := v.Device.Header(ctx)
	if !errors.Is(err, luks2.ErrBusy) || !strings.Contains(err.Error(), "locking the header of "+v.Path+": ") || !strings.HasSuffix(err.Error(), " for more than 1.1s") {
		t.Errorf("%v", err)
	}
	if !slices.Equal(told, []string{"the header of " + v.Path, "done"}) {
		t.Errorf("told %q", told)
	}
}

// TestReadersDoNotExcludeEachOther: the lock is shared for reading.
func TestReadersDoNotExcludeEachOther(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	flock(t, v.Path, unix.LOCK_SH)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := v.Device.Header(ctx); err != nil {
		t.Error(err)
	}
}

// TestALockedImageThatIsReplacedIsOpenedAgain: the lock of the old file says
// nothing about the new one.
func TestALockedImageThatIsReplacedIsOpenedAgain(t *testing.T) {
	t.Parallel()
	v, next := luks2test.New(t), luks2test.New(t, luks2test.WithLabel("next"))
	hold(t, v.Path, 500*time.Millisecond)
	done := make(chan *luks2.Header)
	go func() {
		h, _ := v.Device.Header(t.Context())
		done <- h
	}()
	time.Sleep(100 * time.Millisecond)
	if err := os.Rename(next.Path, v.Path); err != nil {
		t.Fatal(err)
	}
	if h := <-done; h == nil || h.Label != "next" {
		t.Errorf("the old file was read: %+v", h)
	}
}

// TestEightEnrolmentsAtOnce mixes our updates with cryptsetup's. cryptsetup gives
// up when somebody else was first; ours all succeed, and none is lost.
func TestEightEnrollmentsAtOnce(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.HeaderSize = 32 << 10 }))
	key := unlocked(t, v.Device, v.Passphrase)
	var wg sync.WaitGroup
	var mu sync.Mutex
	slots := make(map[string]int) // passphrase: keyslot
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("ours %d", i)
			slot := enrollAlone(t, v.Path, key, name)
			mu.Lock()
			defer mu.Unlock()
			slots[name] = slot
		})
	}
	first, theirs := keyFile(t, v.Passphrase), make([]string, 4)
	for i := range theirs {
		theirs[i] = keyFile(t, fmt.Sprintf("theirs %d", i))
	}
	for i, file := range theirs {
		wg.Go(func() {
			for range 50 { // until nobody else is first
				err := exec.Command("cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
					"--key-file", first, v.Path, file).Run()
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					slots[fmt.Sprintf("theirs %d", i)] = luks2.AnySlot
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("cryptsetup got through %d times of 4", len(slots)-8)
	h := header(t, v.Device)
	if len(h.Keyslots) != len(slots)+1 || len(h.Tokens) != 8 || h.Damaged() {
		t.Errorf("%d keyslots for %d enrolments, %d tokens", len(h.Keyslots), len(slots), len(h.Tokens))
	}
	for passphrase, slot := range slots {
		checkEnrolled(t, v, h, passphrase, slot)
	}
}

// enrolAlone enrols through a Device of its own, as another process would.
func enrollAlone(t *testing.T, path string, key *luks2.VolumeKey, passphrase string) (slot int) {
	d, err := luks2.Open(path, nil)
	if err != nil {
		t.Error(err)
		return -1
	}
	text := secret.Copy([]byte(passphrase))
	defer text.Wipe()
	err = d.Update(t.Context(), func(tx *luks2.Tx) error {
		if slot, err = tx.AddKeyslot(key, text, luks2.MinimalKDF); err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Type: passphrase, Keyslots: []int{slot}})
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return slot
}

func checkEnrolled(t *testing.T, v *luks2test.Volume, h *luks2.Header, passphrase string, slot int) {
	t.Helper()
	key, err := v.Device.OpenKeyslot(t.Context(), slot, text(t, passphrase))
	if err != nil {
		t.Errorf("%s is lost: %v", passphrase, err)
		return
	}
	key.Wipe()
	if tokens := h.TokensOf(slot); strings.HasPrefix(passphrase, "ours") && (len(tokens) != 1 || tokens[0].Type != passphrase) {
		t.Errorf("%s in keyslot %d has tokens %+v", passphrase, slot, tokens)
	}
}

// loopDevice makes a block device of an image, if the machine can.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	testenv.NeedRoot(t)
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		testenv.NotApplicable(t, "no loop devices: "+strings.TrimSpace(string(out)))
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// lockWatcher counts the fsyncs during which a lock file is there.
type lockWatcher struct {
	luks2.File
	path string
	seen int
}

func (w *lockWatcher) Sync() error {
	if _, err := os.Stat(w.path); err == nil {
		w.seen++
	}
	return w.File.Sync()
}

// TestBlockDevice goes through libcryptsetup's lock file in /run/cryptsetup, which
// the last holder removes.
func TestBlockDevice(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	dev := loopDevice(t, v.Path)
	d, err := luks2.Open(dev, nil)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	lock := fmt.Sprintf("/run/cryptsetup/L_%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	w := &lockWatcher{path: lock}
	luks2.Observe(d, func(f luks2.File) luks2.File { w.File = f; return w })
	update(t, d, func(tx *luks2.Tx) error { return tx.SetLabel("x", "") })
	if w.seen != 2 {
		t.Errorf("%s was there at %d of 2 fsyncs", lock, w.seen)
	}
	if _, err := os.Stat(lock); err == nil {
		t.Errorf("%s is left behind", lock)
	}
	if header(t, d).Label != "x" {
		t.Error("nothing was written")
	}
}
