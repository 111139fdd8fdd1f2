package luks2

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"luksmith/luks2/argon2id"
	"luksmith/luks2/secret"
)

// counted is the workspace of a machine with four processors, which counts.
type counted struct {
	*Workspace
	mu            sync.Mutex
	running, most int
	used          map[*argon2id.Memory]int
}

func newCounted() *counted {
	c := &counted{Workspace: NewWorkspace(), used: map[*argon2id.Memory]int{}}
	c.processors, c.enough = 4, func(int) error { return nil }
	return c
}

func kdfOf(lanes int) *KDF {
	return &KDF{Type: KDFArgon2id, Time: 1, MemoryKiB: 4 << 10, Parallel: lanes}
}

var errWrong = errors.New("wrong passphrase")

// try computes in memory of the workspace, which takes a moment.
func (c *counted) try(ctx context.Context, k *KDF) error {
	return c.use(ctx, k, func(m *argon2id.Memory) error {
		c.count(m, 1)
		defer c.count(m, -1)
		out, p := secret.New(32), k.argon2()
		defer out.Wipe()
		p.Memory = m
		if err := p.Key(ctx, secret.Secret{}, out); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
		return errWrong
	})
}

func (c *counted) count(m *argon2id.Memory, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running += n
	c.most = max(c.most, c.running)
	c.used[m]++ // at its beginning and end
}

// tryAll has some KDFs come at once.
func (c *counted) tryAll(t *testing.T, n, lanes int) {
	t.Helper()
	release := c.Hold()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := c.try(t.Context(), kdfOf(lanes)); !errors.Is(err, errWrong) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	release()
	if len(c.idle) != 0 || c.holds != 0 || c.running != 0 || c.lanes != 0 {
		t.Errorf("left: %d pieces of memory, %d holds, %d lanes", len(c.idle), c.holds, c.lanes)
	}
}

// TestSeveralVolumesNeedTheMemoryOfOne: the kernel finds it once where each KDF has a
// lane for every processor.
func TestSeveralVolumesNeedTheMemoryOfOne(t *testing.T) {
	t.Parallel()
	c := newCounted()
	c.tryAll(t, 6, 4)
	if c.most != 1 || len(c.used) != 1 {
		t.Errorf("%d at once in %d pieces of memory", c.most, len(c.used))
	}
}

// TestKDFsOverlapWhereProcessorsAreIdle, and never more than there are processors.
func TestKDFsOverlapWhereProcessorsAreIdle(t *testing.T) {
	t.Parallel()
	c := newCounted()
	c.tryAll(t, 16, 1)
	if c.most < 2 || c.most > 4 || len(c.used) > 4 {
		t.Errorf("%d at once in %d pieces of memory", c.most, len(c.used))
	}
}

// TestKDFsWaitWhereMemoryIsShort: what there is for one, but not three times, is for one
// at a time. So is what the machine turns out not to have.
func TestKDFsWaitWhereMemoryIsShort(t *testing.T) {
	t.Parallel()
	short := &CostError{What: "memory", Machine: true}
	for name, enough := range map[string]func(c *counted, kib int) error{
		"for one only": func(_ *counted, kib int) error {
			if kib > 4<<10 {
				return short
			}
			return nil
		},
		"taken meanwhile": func(c *counted, kib int) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if kib == 4<<10 && len(c.used) > 0 {
				return short
			}
			return nil
		},
	} {
		c := newCounted()
		c.enough = func(kib int) error { return enough(c, kib) }
		c.tryAll(t, 6, 1)
		if c.most != 1 || len(c.used) != 1 {
			t.Errorf("%s: %d at once in %d pieces of memory", name, c.most, len(c.used))
		}
	}
	c := newCounted()
	c.enough = func(int) error { return short }
	if err := c.try(t.Context(), kdfOf(1)); !errors.Is(err, ErrNoMemory) || len(c.used) != 0 {
		t.Errorf("no memory at all: %v", err)
	}
}

// TestWaitingForMemoryEndsWithTheContext, whether somebody of the same run computes or
// another program does.
func TestWaitingForMemoryEndsWithTheContext(t *testing.T) {
	t.Parallel()
	c := newCounted()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.use(t.Context(), kdfOf(4), func(*argon2id.Memory) error { return c.try(ctx, kdfOf(4)) })
	if !errors.Is(err, context.DeadlineExceeded) || len(c.used) != 0 {
		t.Error(err)
	}
}

// TestMemoryThatIsThereNeedsNoLock: another program that has the lock for much memory
// keeps nobody from computing in what was reserved before.
func TestMemoryThatIsThereNeedsNoLock(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the lock is root's")
	}
	c := newCounted()
	release := c.Hold()
	if err := c.try(t.Context(), kdfOf(4)); !errors.Is(err, errWrong) {
		t.Fatal(err)
	}
	unlock, err := memoryHardLock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := c.try(t.Context(), kdfOf(4)); !errors.Is(err, errWrong) || len(c.used) != 1 {
		t.Errorf("memory that is there: %v", err)
	}
	release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.try(ctx, kdfOf(4)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("new memory without the lock: %v", err)
	}
}

// TestReservingStopsWhereMemoryGetsShort, as when a process for each volume reserves at
// the same time: the machine has three times the memory when it begins, not any more when
// it would go on.
func TestReservingStopsWhereMemoryGetsShort(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		c := newCounted()
		var asked atomic.Int64
		c.enough = func(kib int) error {
			if asked.Add(1); kib != (reserveMargin-1)*kdfOf(4).MemoryKiB {
				t.Errorf("%d KiB are asked for", kib)
			}
			if short {
				return &CostError{What: "memory", Machine: true}
			}
			return nil
		}
		release := c.reserve(kdfOf(4))
		for n := 0; asked.Load() == 0 && n < 1000; n++ {
			time.Sleep(time.Millisecond)
		}
		if missing := c.idle[0].Missing(4<<10, 4); asked.Load() != 1 || short && missing < 4<<10 {
			t.Errorf("short %v: %d KiB are missing, asked %d times", short, missing, asked.Load())
		}
		release()
		if len(c.idle) != 0 {
			t.Error("it was not given back")
		}
	}
}
