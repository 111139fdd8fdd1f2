package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/contest"
	"luksmith/tokens"
)

// automatic is how a run goes that precedes another program, which asks for the
// passphrase: what opens a volume without one is tried, within a limit.
type automatic struct {
	// limit is how long disks, keys on other devices and security devices that are
	// not there are waited for.
	limit time.Duration
	// sign is the file that tells whoever watches this process that it is at work.
	sign    string
	lastKey atomic.Pointer[time.Time]
}

const (
	// idleGrace is how long a device that is absent may take to appear while the
	// person in front of the screen waits for the question.
	idleGrace = 3 * time.Second
	// workLimit is how long devices that are there have at least.
	workLimit = 15 * time.Second
	// keyLimit is how long nobody is interrupted after a key was pressed.
	keyLimit = 30 * time.Second
	// signName is the file in reportDir that [automatic.live] makes, before the number
	// of the process. initrd/first looks for it, and takes ten seconds without it for a
	// process that hangs.
	signName = "alive."
	// signTime is how often.
	signTime = time.Second
)

// errLeft ends a contest in favour of the program that asks for the passphrase.
var errLeft error = leftToOthers{}

type leftToOthers struct{}

func (leftToOthers) Error() string {
	return "not opened without a passphrase, for which somebody else asks"
}

// Is makes errors.Is(err, tokens.ErrCancelled) true: a contest ends when its prompt is.
func (leftToOthers) Is(target error) bool { return target == tokens.ErrCancelled }

// newAutomatic prepares a run below root.
func newAutomatic(root string, limit time.Duration) *automatic {
	return &automatic{limit: limit, sign: filepath.Join(root, reportDir, signName+strconv.Itoa(os.Getpid()))}
}

// key is called for what a person types.
func (au *automatic) key() {
	now := time.Now()
	au.lastKey.Store(&now)
}

// live says that this process is at work, and whether somebody types, until stop is
// called. What cannot be said makes the watch shorter.
func (au *automatic) live() (stop func()) {
	_ = os.MkdirAll(filepath.Dir(au.sign), 0o700)
	done := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() {
		for again := true; again; {
			what := "working"
			if au.lastKey.Load() != nil {
				what = "typing"
			}
			_ = os.WriteFile(au.sign, []byte(what+"\n"), 0o600)
			select {
			case <-time.After(signTime):
			case <-done:
				again = false
			}
		}
		_ = os.Remove(au.sign)
	})
	return func() {
		close(done)
		told.Wait()
	}
}

// setAutomatic has the volumes of a run go before another program. Keys that a person
// presses count, and an empty PIN is a way out.
func (as *attacher) setAutomatic(au *automatic) {
	as.automatic = au
	as.asking.OnKey, as.asking.Skippable = au.key, true
}

// bound limits what a volume waits for.
func (au *automatic) bound(j *job) {
	o := j.options
	o.DeviceTimeout, o.KeyFileTimeout = au.shorter(o.DeviceTimeout), au.shorter(o.KeyFileTimeout)
	o.TokenTimeout = min(o.TokenTimeout, au.limit)
	if slices.ContainsFunc(o.Words, func(w crypttab.Word) bool { return w.Name == "keyscript" }) {
		j.entry.Key = crypttab.Location{} // it is an argument of the script
	}
}

func (au *automatic) shorter(d *time.Duration) *time.Duration {
	limit := au.limit
	if d != nil {
		limit = min(limit, *d)
	}
	return &limit
}

// arrange puts the limit in place of the question.
func (au *automatic) arrange(at *attempt, c *contest.Contest) {
	w := &workWatch{left: len(c.Ways), changed: make(chan struct{}, 1)}
	for i := range c.Ways {
		c.Ways[i] = watchedWay{c.Ways[i], w}
	}
	o := at.as.asking
	o.AgentDir, o.Plymouth, o.Echo, o.Headless = "", "", askpass.EchoSilent, at.job.options.Headless
	asker := askpass.New(o)
	at.askers = append(at.askers, asker)
	c.Prompt = func(appear <-chan struct{}) contest.Way { return &limitWay{au, asker, w, appear} }
}

// workWatch knows how many ways are at work, and how many are left.
type workWatch struct {
	mu         sync.Mutex
	busy, left int
	changed    chan struct{}
}

func (w *workWatch) add(busy, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy += busy
	w.left += left
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *workWatch) state() (busy, left bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy > 0, w.left > 0
}

// watchedWay tells a workWatch what it does.
type watchedWay struct {
	contest.Way
	watch *workWatch
}

// Open passes the call on.
func (w watchedWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	working := true
	set := func(now bool) {
		switch {
		case now && !working:
			w.watch.add(1, 0)
		case !now && working:
			w.watch.add(-1, 0)
		}
		working = now
	}
	w.watch.add(1, 0)
	defer w.watch.add(0, -1)
	defer set(false)
	return w.Way.Open(ctx, func(now bool) {
		busy(now)
		set(now)
	})
}

// limitWay stands where a person would be asked. It ends the contest when nothing
// works on a key any more, or a person does not want to wait.
type limitWay struct {
	au     *automatic
	asker  *askpass.Asker // of the console only
	watch  *workWatch
	appear <-chan struct{} // closed when no way has to begin any more
}

// Name is for messages.
func (w *limitWay) Name() string { return "limit" }

// Open implements [contest.Way]. There is never a key.
func (w *limitWay) Open(ctx context.Context, _ func(bool)) (*contest.Found, error) {
	began, appear, shown := time.Now(), w.appear, time.After(quietTime)
	q := askpass.Question{Prompt: tokens.Prompt{Text: "Press Enter to go on without"}, Hidden: true, Fresh: true}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	p := w.asker.Start(asking, q)
	answered := p.Done()
	for {
		_, left := w.watch.state()
		wait := time.Until(w.deadline(began, appear == nil))
		switch {
		case !left:
			return nil, contest.ErrNothing
		case wait <= 0:
			return nil, errLeft
		}
		timer := time.NewTimer(wait)
		select {
		case <-w.watch.changed:
		case <-appear:
			appear = nil
		case <-shown:
			p.Reveal()
		case <-answered:
			if answer, err := p.Wait(); err == nil || errors.Is(err, tokens.ErrCancelled) {
				answer.Wipe()
				return nil, errLeft
			}
			answered = nil // there is no console
		case <-timer.C: // unless a key was pressed meanwhile
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// deadline is when the contest ends at the latest: while a device that is there works
// on the key later than when one is only hoped for.
func (w *limitWay) deadline(began time.Time, begun bool) time.Time {
	end := began.Add(min(idleGrace, w.au.limit))
	if busy, _ := w.watch.state(); busy || !begun {
		end = began.Add(max(workLimit, w.au.limit))
	}
	if key := w.au.lastKey.Load(); key != nil && key.Add(keyLimit).After(end) {
		end = key.Add(keyLimit)
	}
	return end
}

// attachFirst attaches what can be attached without a passphrase. What stays closed is
// no error: the program that comes next finds it so.
func (as *attacher) attachFirst(jobs []*job) error {
	for _, err := range as.attachTogether(jobs) {
		if as.unexpected(err) {
			as.msg.WarnError(err)
		}
	}
	return context.Cause(as.ctx)
}

// unexpected is false for what is no news: that a person has to be asked, what was said
// when it happened, and a disk that may still come.
func (as *attacher) unexpected(err error) bool {
	_, told := errors.AsType[*contest.Failure](err)
	late := as.automatic.limit == 0 && errors.Is(err, tokens.ErrTimeout)
	return err != nil && !told && !late && !errors.Is(err, errLeft) && !errors.Is(err, tokens.ErrNoPrompt)
}
