package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// TestQuestionsOfSeveralVolumesComeOneByOneInOrder has two terminals, three volumes with
// passphrases of their own, the first of which is slow to ask, and a wrong answer.
func TestQuestionsOfSeveralVolumesComeOneByOneInOrder(t *testing.T) {
	b := newBench(t)
	screen, serial := b.atTerminals(t)
	real := b.devices.resolve
	b.devices.resolve = func(ref crypttab.DeviceRef) (string, error) {
		if strings.Contains(ref.Value, "first") {
			time.Sleep(300 * time.Millisecond)
		}
		return real(ref)
	}
	first := volumeNamed(t, "first")
	if err := os.Rename(first, first+"-first"); err != nil {
		t.Fatal(err)
	}
	lines := fmt.Sprintf("first %s-first - password-cache=no\nsecond %s - password-cache=no\nthird %s - password-cache=no,nofail\n", first, volumeNamed(t, "second"), volumeNamed(t, "third"))
	done := make(chan error, 1)
	go func() { done <- b.attachLines(t, lines) }()
	both := func(text string) { // an answer at one takes the question from the other, shown or not
		screen.reads(text)
		serial.reads(text)
	}
	both("Please enter passphrase for disk first:")
	screen.types("wrong\n")
	both("Wrong passphrase, please try again. Please enter passphrase for disk first:")
	screen.types("open first\n")
	both("passphrase for disk second:")
	serial.types("open second\n") // the other terminal's turn
	both("passphrase for disk third:")
	screen.types("open third\n")
	if err := <-done; err != nil || len(b.names()) != 3 {
		t.Fatalf("%v, attached %v", err, b.names())
	}
	for _, s := range []*seat{screen, serial} {
		inOrder(t, s.text(), "disk first:", "Wrong passphrase, please try again.", "disk first:", "disk second:", "disk third:")
		if strings.Count(s.text(), "disk second:") < 1 || strings.Contains(s.text(), "open ") {
			t.Errorf("shown:\n%s", s.text())
		}
	}
}

// TestGivingUpIsSaidBeforeTheNextQuestion: the person knows which volume stays closed.
func TestGivingUpIsSaidBeforeTheNextQuestion(t *testing.T) {
	b := newBench(t)
	screen, serial := b.atTerminals(t)
	b.msg.Err.Via(b.asking.Console)
	done := make(chan error, 1)
	lines := fmt.Sprintf("first %s - password-cache=no,tries=2\nsecond %s - password-cache=no\n", volumeNamed(t, "first"), volumeNamed(t, "second"))
	go func() { done <- b.attachLines(t, lines) }()
	screen.reads("disk first:")
	screen.types("wrong\n")
	screen.reads("Wrong passphrase, please try again.")
	screen.reads("disk first:")
	screen.types("wrong\n")
	for _, s := range []*seat{screen, serial} {
		s.reads("2 wrong answers for disk first; it stays closed.")
		s.reads("disk second:")
	}
	screen.types("open second\n")
	err := <-done
	if cli.ExitStatus(err) != cli.ExitNoKey || !strings.Contains(err.Error(), "attaching first: passphrase prompt: 2 wrong answers") {
		t.Errorf("%v", err)
	}
}

// TestWhatIsTypedWhileAnAnswerIsTriedIsNotShown, nor given to the next question.
func TestWhatIsTypedWhileAnAnswerIsTriedIsNotShown(t *testing.T) {
	b := newBench(t)
	screen, serial := b.atTerminals(t)
	image := luks2test.New(t, luks2test.WithPassphrase("open vol")).Path
	header, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer header.Close()
	tried := make(chan struct{})
	j, err := b.newJob(crypttab.Entry{Name: "vol", Source: crypttab.LiteralDeviceRef(image), Options: "password-cache=no"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { defer close(tried); done <- b.attach(b.ctx, j) }()
	screen.reads("disk vol:")
	if err := unix.Flock(int(header.Fd()), unix.LOCK_EX); err != nil { // somebody changes the header
		t.Fatal(err)
	}
	screen.types("wrong\n")
	screen.reads("checking the passphrase for disk vol")
	for _, s := range []*seat{screen, serial} {
		s.types("half\nof a pass")
	}
	if err := unix.Flock(int(header.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	screen.reads("Wrong passphrase, please try again.")
	screen.reads("disk vol:")
	screen.types("open vol\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-tried
	for _, s := range []*seat{screen, serial} {
		if text := s.text(); strings.Contains(text, "half") || strings.Contains(text, "pass ") || strings.Count(text, "Wrong") != 1 {
			t.Errorf("shown: %s", text)
		}
	}
}

// TestNobodyIsAskedWhileThePassphraseIsTriedElsewhere: an answer that opens the next
// volume as well withdraws its question before anybody sees it.
func TestNobodyIsAskedWhileThePassphraseIsTriedElsewhere(t *testing.T) {
	b := newBench(t)
	screen, _ := b.atTerminals(t)
	lines := ""
	for i := range 4 {
		lines += fmt.Sprintf("v%d %s - password-cache=no\n", i, volumeNamed(t, "all"))
	}
	done := make(chan error, 1)
	go func() { done <- b.attachLines(t, lines) }()
	screen.reads("disk v0:")
	screen.types("open all\n")
	if err := <-done; err != nil || len(b.names()) != 4 {
		t.Fatalf("%v, attached %v", err, b.names())
	}
	if strings.Contains(screen.text(), "disk v1") {
		t.Errorf("asked more than once: %s", screen.text())
	}
}

// TestTimeoutOfAQuestionBeginsWhenItIsSeen: the second volume's time does not run while
// the first one is asked about.
func TestTimeoutOfAQuestionBeginsWhenItIsSeen(t *testing.T) {
	b := newBench(t)
	screen, _ := b.atTerminals(t)
	done := make(chan error, 1)
	lines := fmt.Sprintf("first %s - password-cache=no\nsecond %s - password-cache=no,timeout=1\n", volumeNamed(t, "first"), volumeNamed(t, "second"))
	go func() { done <- b.attachLines(t, lines) }()
	screen.reads("disk first:")
	time.Sleep(1500 * time.Millisecond)
	screen.types("open first\n")
	screen.reads("disk second:")
	screen.types("open second\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// queue makes the turns of volumes with these options.
func queue(patience time.Duration, options ...crypttab.Options) []*turn {
	var jobs []*job
	for i := range options {
		jobs = append(jobs, &job{options: &options[i]})
	}
	newTurns(jobs, patience)
	return jobs[0].turn.of.list
}

// TestTurnsGoByTheOrderOfCrypttab takes them in all orders of arrival.
func TestTurnsGoByTheOrderOfCrypttab(t *testing.T) {
	t.Parallel()
	for _, arrival := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			list := queue(3*time.Second, make([]crypttab.Options, 3)...)
			var order []int
			var all sync.WaitGroup
			for n, i := range arrival {
				all.Go(func() {
					time.Sleep(time.Duration(n) * time.Second)
					if err := list[i].take(t.Context(), 0); err != nil {
						t.Error(err)
					}
					order = append(order, i)
					time.Sleep(time.Minute)
					list[i].pass(0)
				})
			}
			all.Wait()
			if !slices.IsSorted(order) {
				t.Errorf("arrived as %v, asked as %v", arrival, order)
			}
		})
	}
}

// TestOthersAreNotWaitedForLongerThanTheyMayTake: a volume before this one is absent,
// slow or never asks.
func TestOthersAreNotWaitedForLongerThanTheyMayTake(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first func(*turn)
		want  time.Duration
	}{
		"absent":   {func(t *turn) { t.whileMissing() }, quietTime},
		"silent":   {func(*turn) {}, 3 * time.Second},
		"headless": {func(t *turn) { t.never = true }, 0},
		"done":     {func(t *turn) { t.set(away) }, 0},
		"cancelled": {func(t *turn) {
			c, stop := context.WithCancel(context.Background())
			stop()
			_ = t.take(c, 0)
			t.pass(0)
		}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			list := queue(3*time.Second, crypttab.Options{}, crypttab.Options{})
			c.first(list[0])
			start := time.Now()
			if err := list[1].take(t.Context(), 0); err != nil || time.Since(start) != c.want {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		})
	}
}

// TestOptionalVolumeGivesWayWhenNobodyAnswers: a question for a nofail volume must not
// keep an agent from the one for the root volume.
func TestOptionalVolumeGivesWayWhenNobodyAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []crypttab.Options
		typing  bool
		want    time.Duration
	}{
		"needed after optional": {[]crypttab.Options{{NoFail: true}, {}}, false, keyLimit},
		"somebody types":        {[]crypttab.Options{{NoFail: true}, {}}, true, 20*time.Second + keyLimit},
		"both needed":           {[]crypttab.Options{{}, {}}, false, time.Hour},
		"both optional":         {[]crypttab.Options{{NoFail: true}, {NoFail: true}}, false, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			list := queue(3*time.Second, c.options...)
			if err := list[0].take(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			hide := list[0].show(0, func() { close(ended) })
			if c.typing {
				time.AfterFunc(20*time.Second, list[0].key)
			}
			go func() {
				select {
				case <-ended:
				case <-time.After(time.Hour):
				}
				if yielded := hide(); yielded != (c.want < time.Hour) {
					t.Errorf("%s: yielded: %v", name, yielded)
				}
				list[0].pass(0)
			}()
			start := time.Now()
			if err := list[1].take(t.Context(), 0); err != nil || time.Since(start) != c.want {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		})
	}
}

// TestQuestionThatGaveWayComesBack with the tries that it had.
func TestQuestionThatGaveWayComesBack(t *testing.T) {
	b := newBench(t)
	seen := b.agent(t, "+no", "-later", "+open first")
	j, err := b.newJob(crypttab.Entry{Name: "first", Source: crypttab.LiteralDeviceRef(volumeNamed(t, "first")), Options: "tries=2,password-cache=no,nofail"})
	if err != nil {
		t.Fatal(err)
	}
	newTurns([]*job{j}, 0)
	n := 0
	b.onQuestion = func() {
		if n++; n == 2 {
			j.turn.of.mu.Lock()
			j.turn.claims[forPassphrase].shown.ended = true
			j.turn.of.mu.Unlock()
		}
	}
	if err := b.attach(b.ctx, j); err != nil || len(seen()) != 3 {
		t.Errorf("%v after %d questions", err, len(seen()))
	}
}

// TestPoolIsSettled when every passphrase was tried, or no more will be.
func TestPoolIsSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(luks2.NewWorkspace().Hold)
		defer p.wipe()
		if err := p.settled(t.Context(), "v"); err != nil {
			t.Error(err)
		}
		s := secret.Copy([]byte("x"))
		p.add("other", s)
		s.Wipe()
		start := time.Now()
		time.AfterFunc(time.Second, func() { p.mark("w", 1) })
		time.AfterFunc(2*time.Second, func() { p.mark("v", 1) })
		if err := p.settled(t.Context(), "v"); err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, stop := context.WithCancelCause(t.Context())
		stop(tokens.ErrCancelled)
		if err := p.settled(ctx, "never"); !errors.Is(err, tokens.ErrCancelled) {
			t.Error(err)
		}
	})
}

// TestCommandThatAsksAgain is complete, wherever the volume was named.
func TestCommandThatAsksAgain(t *testing.T) {
	t.Setenv("SYSTEMD_CRYPTTAB", "")
	a := &app{}
	device, key := crypttab.ParseDeviceRef("UUID="+uuid3), crypttab.LiteralLocation("/k")
	for want, e := range map[string]crypttab.Entry{
		"cryptsetup-unit attach 'a b'":                               {File: "/etc/crypttab", Name: "a b", Source: device},
		"cryptsetup-unit attach root":                                {File: crypttab.CommandLine, Name: "root", Source: device},
		"cryptsetup-unit attach-all --crypttab=/x v":                 {File: "/x", Name: "v", Source: device, Key: key},
		"cryptsetup-unit attach-all --discover root":                 {File: discoveredIn + "/dev/vda", Name: "root", Source: device},
		"cryptsetup-unit attach v UUID=" + uuid3:                     {Name: "v", Source: device},
		"cryptsetup-unit attach v UUID=" + uuid3 + " /k":             {Name: "v", Source: device, Key: key},
		"cryptsetup-unit attach v UUID=" + uuid3 + " - luks,discard": {Name: "v", Source: device, Options: "luks,discard"},
	} {
		if got := a.attachCommand(&job{entry: e}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
