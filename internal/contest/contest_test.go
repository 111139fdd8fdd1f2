package contest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// modelWay plays one kind of source. Times are those of a synctest bubble.
type modelWay struct {
	kind  string
	after time.Duration // how long it takes, or waits
	err   error         // nil gives a key at the end
	// waits: it says that it only waits. deaf: it does not listen to its context.
	waits, deaf bool
	stopped     atomic.Bool
	began       atomic.Int64 // unix nanoseconds
}

func (m *modelWay) Name() string { return m.kind }

func (m *modelWay) Open(ctx context.Context, busy func(bool)) (*Found, error) {
	m.began.Store(time.Now().UnixNano())
	if m.waits {
		busy(false)
	}
	done := ctx.Done()
	if m.deaf {
		done = nil
	}
	select {
	case <-time.After(m.after):
	case <-done:
		m.stopped.Store(true)
		return nil, context.Cause(ctx)
	}
	if m.err != nil {
		return nil, m.err
	}
	return &Found{Key: secret.Copy([]byte("key")), By: m.kind}, nil
}

const never = 24 * time.Hour

// failingWays are the sources that never give a key, in the ways that real ones
// fail: at once, slowly, by waiting for something, without end.
func failingWays() []*modelWay {
	return []*modelWay{
		{kind: "dead token", after: 0, err: tokens.ErrPolicy},
		{kind: "slow token", after: 20 * time.Second, err: tokens.ErrTimeout},
		{kind: "absent token", after: 30 * time.Second, err: tokens.ErrNoDevice, waits: true},
		{kind: "wrong key file", after: 50 * time.Millisecond, err: tokens.ErrWrongKey},
		{kind: "silent socket", after: never, err: tokens.ErrTimeout},
		{kind: "deaf device", after: 40 * time.Second, err: tokens.ErrTimeout, deaf: true},
	}
}

// person answers the prompt after a delay from its appearance.
type person struct {
	delay    time.Duration
	wrong    int // answers before the right one; negative: never the right one
	tries    int
	cancels  bool
	appeared atomic.Int64
}

func (p *person) way(appear <-chan struct{}) Way { return &promptModel{p, appear} }

type promptModel struct {
	*person
	appear <-chan struct{}
}

func (p *promptModel) Name() string { return "prompt" }

func (p *promptModel) Open(ctx context.Context, _ func(bool)) (*Found, error) {
	for i := 0; i < p.tries; i++ {
		select {
		case <-p.appear:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p.appeared.CompareAndSwap(0, time.Now().UnixNano())
		select {
		case <-time.After(p.delay):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if p.cancels {
			return nil, tokens.ErrCancelled
		}
		if p.wrong >= 0 && i >= p.wrong {
			return &Found{Key: secret.Copy([]byte("key")), By: "prompt"}, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrGaveUp, tokens.ErrWrongKey)
}

// permutations of n numbers, all lengths from 0.
func permutations(n int) (all [][]int) {
	var extend func(prefix []int)
	extend = func(prefix []int) {
		all = append(all, slices.Clone(prefix))
		for i := range n {
			if !slices.Contains(prefix, i) {
				extend(append(prefix, i))
			}
		}
	}
	extend(nil)
	return all
}

func asWays(list []*modelWay) (ways []Way) {
	for _, w := range list {
		ways = append(ways, w)
	}
	return ways
}

func newContest(ways []*modelWay, p *person) *Contest {
	c := &Contest{Ways: asWays(ways), Patience: Patience, Settle: SettleTime}
	if p != nil {
		c.Prompt = p.way
	}
	return c
}

// TestEveryOrderOfFailingSourcesEndsAtThePrompt tries all orders of all subsets of
// six failing sources: the prompt appears within three seconds, and the right answer
// opens the volume, also after wrong ones.
func TestEveryOrderOfFailingSourcesEndsAtThePrompt(t *testing.T) {
	t.Parallel()
	for _, order := range permutations(len(failingWays())) {
		for wrong := range 3 {
			synctest.Test(t, func(t *testing.T) {
				all := failingWays()
				var ways []*modelWay
				for _, i := range order {
					ways = append(ways, all[i])
				}
				p := &person{delay: time.Second, wrong: wrong, tries: 3}
				start := time.Now()
				f, failures, err := newContest(ways, p).Run(t.Context())
				if err != nil || f.By != "prompt" {
					t.Fatalf("order %v: %v, %v", order, f, err)
				}
				f.Key.Wipe()
				if wait := time.Unix(0, p.appeared.Load()).Sub(start); wait > Patience {
					t.Errorf("order %v: the prompt appeared after %v", order, wait)
				}
				if took := time.Since(start); took > Patience+time.Duration(wrong+1)*time.Second+SettleTime {
					t.Errorf("order %v: took %v", order, took)
				}
				for _, w := range ways {
					if w.after < Patience && !slices.ContainsFunc(failures, func(f *Failure) bool { return f.Way == w.kind }) {
						t.Errorf("order %v: the failure of the %s is not reported", order, w.kind)
					}
				}
				time.Sleep(2 * never) // the deaf one ends too
			})
		}
	}
}

// TestWithoutAnybodyToAskAllFailuresAreReported is the headless case.
func TestWithoutAnybodyToAskAllFailuresAreReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ways := failingWays()[:4]
		f, failures, err := newContest(ways, nil).Run(t.Context())
		if f != nil || len(failures) != 4 {
			t.Fatalf("%v, %v", f, failures)
		}
		for _, w := range ways {
			if !errors.Is(err, w.err) || !strings.Contains(err.Error(), w.kind) {
				t.Errorf("%s is missing in %v", w.kind, err)
			}
		}
	})
}

func TestFirstKeyWins(t *testing.T) {
	t.Parallel()
	plugged := func(after time.Duration) *modelWay {
		return &modelWay{kind: "token", after: after, waits: true}
	}
	for name, tt := range map[string]struct {
		ways   []*modelWay
		person *person
		by     string
		within time.Duration
	}{
		"token at once, nobody asked":        {[]*modelWay{{kind: "token"}}, &person{delay: 0, tries: 3}, "token", 0},
		"token plugged in while asked":       {[]*modelWay{plugged(5 * time.Second)}, &person{delay: never, tries: 3}, "token", 5 * time.Second},
		"typing wins over a waiting token":   {[]*modelWay{plugged(5 * time.Second)}, &person{delay: 2 * time.Second, tries: 3}, "prompt", 2 * time.Second},
		"typing wins over a busy token":      {[]*modelWay{{kind: "token", after: 8 * time.Second}}, &person{delay: 2 * time.Second, tries: 3}, "prompt", 5 * time.Second},
		"busy token wins over slow typing":   {[]*modelWay{{kind: "token", after: 4 * time.Second}}, &person{delay: 2 * time.Second, tries: 3}, "token", 4 * time.Second},
		"second source while the first runs": {[]*modelWay{{kind: "silent", after: never}, {kind: "file", after: time.Second}}, &person{delay: never, tries: 3}, "file", 4 * time.Second},
		"second source while the first waits": {[]*modelWay{{kind: "absent", after: never, waits: true}, {kind: "file"}}, &person{delay: 0, tries: 3},
			"file", 0},
		"token in progress may finish after the last try": {[]*modelWay{{kind: "token", after: 10 * time.Second}}, &person{wrong: -1, tries: 1}, "token", 10 * time.Second},
		"nobody to ask":              {[]*modelWay{plugged(time.Hour)}, nil, "token", time.Hour},
		"deaf device does not delay": {[]*modelWay{{kind: "deaf", after: never, deaf: true}}, &person{delay: 0, tries: 3}, "prompt", Patience + SettleTime},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			f, _, err := newContest(tt.ways, tt.person).Run(t.Context())
			if err != nil || f.By != tt.by {
				t.Fatalf("%s: %+v, %v", name, f, err)
			}
			f.Key.Wipe()
			if took := time.Since(start); took > tt.within {
				t.Errorf("%s: took %v, want %v", name, took, tt.within)
			}
			for _, w := range tt.ways {
				if w.kind != tt.by && !w.deaf && w.began.Load() != 0 && w.after == never && !w.stopped.Load() {
					t.Errorf("%s: the %s was not stopped", name, w.kind)
				}
			}
			time.Sleep(2 * never)
		})
	}
}

func TestContestEnds(t *testing.T) {
	t.Parallel()
	waiting := func() []*modelWay { return []*modelWay{{kind: "absent", after: never, waits: true}} }
	for name, tt := range map[string]struct {
		ways   []*modelWay
		person *person
		want   error
		within time.Duration
	}{
		"the person cancels":                 {waiting(), &person{cancels: true, tries: 3, delay: time.Second}, tokens.ErrCancelled, time.Second},
		"no try is left and nothing in hand": {waiting(), &person{wrong: -1, tries: 3, delay: time.Second}, tokens.ErrWrongKey, 3 * time.Second},
		"no try is left, slow token fails":   {[]*modelWay{{kind: "slow", after: 20 * time.Second, err: tokens.ErrTimeout}}, &person{wrong: -1, tries: 1}, tokens.ErrTimeout, 20 * time.Second},
		"signal":                             {waiting(), &person{tries: 1, delay: never}, context.DeadlineExceeded, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			start := time.Now()
			f, _, err := newContest(tt.ways, tt.person).Run(ctx)
			if f != nil || !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, %v", name, f, err)
			}
			if took := time.Since(start); took > tt.within {
				t.Errorf("%s: took %v", name, took)
			}
			if !errors.Is(tt.want, context.DeadlineExceeded) && errors.Is(err, errNoPatience) {
				t.Errorf("%s: the error tells of our own plumbing: %v", name, err)
			}
		})
	}
}

// TestLateKeyIsWiped covers a device that answers when the volume is open already.
func TestLateKeyIsWiped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		late := &Found{Key: secret.Copy([]byte("key"))}
		slow := wayFunc(func(context.Context, func(bool)) (*Found, error) {
			time.Sleep(time.Hour)
			return late, nil
		})
		p := &person{tries: 1}
		f, _, err := (&Contest{Ways: []Way{slow}, Prompt: p.way, Patience: Patience, Settle: SettleTime}).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Key.Wipe()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if late.Key.Len() != 0 {
			t.Error("the key that came late is still there")
		}
	})
}

type wayFunc func(context.Context, func(bool)) (*Found, error)

func (wayFunc) Name() string { return "function" }
func (f wayFunc) Open(ctx context.Context, busy func(bool)) (*Found, error) {
	return f(ctx, busy)
}
