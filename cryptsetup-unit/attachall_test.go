package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// planAll makes jobs of crypttab and kernel command line.
func (a *app) planAll(path string, initrd bool) (jobs []*job, errs []error, err error) {
	return a.planSome(path, initrd, &selection{on: func(string) bool { return true }})
}

// planSome is planAll for the volumes of a selection.
func (a *app) planSome(path string, initrd bool, w *selection) (jobs []*job, errs []error, err error) {
	entries, err := a.entries(path, initrd)
	if err != nil {
		return nil, nil, err
	}
	jobs, errs = a.planEntries(entries, w)
	return jobs, errs, nil
}

// attachLines is attach-all on the bench.
func (b *bench) attachLines(t testing.TB, lines string) error {
	t.Helper()
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	path := b.file(t, "etc/crypttab", lines)
	jobs, errs, err := b.planAll(path, false)
	if err != nil {
		return err
	}
	latched := 0
	for _, j := range jobs {
		if j.options.Latch {
			latched++
		}
	}
	b.latch = newLatch(latched)
	return b.attachJobs(jobs, errs)
}

func (b *bench) names() (list []string) {
	for _, r := range b.mapped {
		list = append(list, r.Name)
	}
	slices.Sort(list)
	return list
}

func TestAttachAll(t *testing.T) {
	b := newBench(t)
	image, key := newImage(t), b.file(t, "k", rightKey)
	err := b.attachLines(t, fmt.Sprintf("a %[1]s %[2]s luks\nb %[1]s %[2]s noauto\nc %[1]s %[2]s headless,nofail\nd %[1]s /none headless,nofail\n"+
		"e %[1]s /none headless\na/b %[1]s\nonly\na %[1]s\nf %[1]s - bitlk,nofail\n", image, key))
	if got := b.names(); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("attached: %v", got)
	}
	if cli.ExitStatus(err) != cli.ExitNoKey {
		t.Errorf("status %d: %v", cli.ExitStatus(err), err)
	}
	for _, want := range []string{"attaching e:", "attaching a/b:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	for _, dont := range []string{"attaching d:", "attaching f:"} {
		if strings.Contains(err.Error(), dont) || !strings.Contains(b.messages.String(), "test: warning: "+dont) {
			t.Errorf("%q is to be a warning: %v\n%s", dont, err, b.messages)
		}
	}
	if !strings.Contains(b.messages.String(), "crypttab:7: line: no device") || !strings.Contains(b.messages.String(), `"a" is already defined`) {
		t.Errorf("messages: %s", b.messages)
	}
}

// TestInterruptedNofailVolumeIsNoSuccess: Ctrl-C is told to whoever called.
func TestInterruptedNofailVolumeIsNoSuccess(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(b.ctx)
	b.ctx = ctx
	time.AfterFunc(50*time.Millisecond, func() { cancel(&cli.SignalError{Signal: os.Interrupt}) })
	if err := b.attachLines(t, fmt.Sprintf("a %s - nofail,password-cache=no\n", newImage(t))); cli.ExitStatus(err) != cli.ExitCancelled {
		t.Error(err)
	}
}

func TestMissingCrypttabIsFine(t *testing.T) {
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "")
	if jobs, errs, err := b.planAll(filepath.Join(b.root, "none"), false); len(jobs)+len(errs) != 0 || err != nil {
		t.Errorf("%v %v %v", jobs, errs, err)
	}
}

func TestKernelLineNamesVolumes(t *testing.T) {
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "rd.luks.name="+uuid3+"=root luks.options=discard")
	jobs, _, err := b.planAll(filepath.Join(b.root, "none"), true)
	if err != nil || len(jobs) != 1 || jobs[0].entry.Name != "root" || !jobs[0].options.Discard || jobs[0].entry.Source.String() != "UUID="+uuid3 {
		t.Errorf("%+v, %v", jobs, err)
	}
	if jobs, _, _ := b.planAll(filepath.Join(b.root, "none"), false); len(jobs) != 0 {
		t.Error("rd. words count in the initrd only")
	}
}

// TestOnePassphraseForSeveralVolumes: the second prompt goes away when the first is
// answered.
func TestOnePassphraseForSeveralVolumes(t *testing.T) {
	b := newBench(t)
	asked := b.agent(t, "+"+rightPassphrase)
	image := newImage(t)
	if err := b.attachLines(t, fmt.Sprintf("a %[1]s - password-cache=no\nb %[1]s - password-cache=no\nc %[1]s - password-cache=no\n", image)); err != nil {
		t.Fatal(err)
	}
	if len(b.names()) != 3 || len(asked()) != 1 {
		t.Errorf("attached %v, answered %d questions", b.names(), len(asked()))
	}
}

// TestLatchedVolumesAreUnsealedBeforeAnyIsMeasured uses a chip that refuses once the
// PCR has moved.
func TestLatchedVolumesAreUnsealedBeforeAnyIsMeasured(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	measured := 0
	b.measure = func(context.Context, *tpm2.Handler, *tpm2.MeasureRequest) (*tpm2.Measured, error) {
		mu.Lock()
		defer mu.Unlock()
		measured++
		return &tpm2.Measured{}, nil
	}
	var volumes atomic.Int64
	b.newHandlers = func() tokens.Set {
		delay := time.Duration(volumes.Add(1)) * 20 * time.Millisecond
		return tokens.Set{&plug{typ: "tpm2", passphrase: rightKey, script: []func(*tokens.UnlockRequest) error{func(*tokens.UnlockRequest) error {
			time.Sleep(delay)
			mu.Lock()
			defer mu.Unlock()
			if measured > 0 {
				return tokenFails(0, tokens.ErrPolicy)
			}
			return nil
		}}}}
	}
	image := imageWithToken(t, "systemd-tpm2")
	err := b.attachLines(t, fmt.Sprintf("a %[1]s - tpm2-device=auto,luksmith-latch\nb %[1]s - tpm2-device=auto,luksmith-latch\nc %[1]s - tpm2-device=auto,luksmith-latch\n"+
		"d %[1]s %[2]s headless,luksmith-latch\ne /none %[2]s luksmith-latch,nofail\n", image, b.file(t, "k", rightKey)))
	if err != nil || len(b.names()) != 4 || measured != 4 {
		t.Errorf("%v; attached %v, measured %d", err, b.names(), measured)
	}
}

func TestLatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLatch(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		time.AfterFunc(time.Second, l.release)
		time.AfterFunc(5*time.Second, l.release)
		start := time.Now()
		if err := l.wait(ctx); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := newLatch(0).wait(ctx); err != nil {
			t.Error(err)
		}
		if err := newLatch(1).wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held := 0
		p := newPool(func() func() { held++; return func() { held-- } })
		defer p.wipe()
		tried := 0
		w := poolWay{p, "this", func(_ context.Context, s secret.Secret, _ []int) (*contest.Found, error) {
			if tried++; held != 1 {
				t.Errorf("the memory of the last KDF is kept %d times", held)
			}
			if strings.TrimSpace(string(s.Bytes())) == "right" {
				return &contest.Found{}, nil
			}
			return nil, luks2.ErrNoKey
		}}
		add := func(text string) func() {
			return func() { s := secret.Copy([]byte(text)); p.add("other", s); s.Wipe() }
		}
		add("early")()
		own := secret.Copy([]byte("right"))
		p.add("this", own) // the report would name the wrong source
		own.Wipe()
		for i, text := range []string{"wrong", "wrong", "right "} {
			time.AfterFunc(time.Duration(i+1)*time.Second, add(text))
		}
		f, err := w.Open(t.Context(), func(bool) {})
		if err != nil || f == nil || tried != 3 || held != 0 {
			t.Errorf("%v after %d tries, memory kept %d times", err, tried, held)
		}
		ctx, stop := context.WithTimeoutCause(t.Context(), time.Second, tokens.ErrCancelled)
		defer stop()
		if err := p.settled(ctx, "this"); !errors.Is(err, tokens.ErrCancelled) {
			t.Errorf("a question about the open volume may be shown: %v", err)
		}
	})
}

// TestPoolCanBeWipedWhileAPassphraseIsTried: a KDF that a contest left behind goes on
// when the run ends.
func TestPoolCanBeWipedWhileAPassphraseIsTried(t *testing.T) {
	t.Parallel()
	p := newPool(luks2.NewWorkspace().Hold)
	given := secret.Copy([]byte("right"))
	p.add("other", given)
	given.Wipe()
	var tried secret.Secret
	w := poolWay{p, "this", func(_ context.Context, s secret.Secret, _ []int) (*contest.Found, error) {
		p.wipe()
		if tried = s; string(s.Bytes()) != "right" {
			t.Errorf("the passphrase became %q", s.Bytes())
		}
		return &contest.Found{}, nil
	}}
	if _, err := w.Open(t.Context(), func(bool) {}); err != nil {
		t.Error(err)
	}
	if tried.Len() != 0 {
		t.Error("the copy was not wiped")
	}
}

func TestWaitingForDevices(t *testing.T) {
	t.Parallel()
	ref := crypttab.ParseDeviceRef("UUID=" + uuid3)
	for name, tt := range map[string]struct {
		appears time.Duration
		limit   time.Duration
		want    error
		took    time.Duration
	}{
		"there":   {0, time.Minute, nil, 0},
		"later":   {3 * time.Second, time.Minute, nil, 3 * time.Second},
		"never":   {24 * time.Hour, 90 * time.Second, tokens.ErrTimeout, 90 * time.Second},
		"patient": {5 * time.Hour, crypttab.Forever, nil, 5 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			start, ui := time.Now(), &screen{}
			d := &devices{ui: ui, watch: eventsAt(time.Second, 3*time.Second, 5*time.Hour), resolve: func(crypttab.DeviceRef) (string, error) {
				if time.Since(start) >= tt.appears {
					return "/dev/sda", nil
				}
				return "", fmt.Errorf("%w", fs.ErrNotExist)
			}}
			node, err := d.await(t.Context(), "device", tt.limit, ref)
			if !errors.Is(err, tt.want) || err == nil && node != "/dev/sda" || time.Since(start) != tt.took {
				t.Errorf("%s: %s, %v after %v", name, node, err, time.Since(start))
			}
			if tt.want != nil && err.Error() != "device UUID="+uuid3+" did not appear within 1m30s" {
				t.Errorf("%s: %v", name, err)
			}
			if tt.took > quietTime && (len(ui.shown) != 1 || ui.open != 0 || !strings.HasPrefix(ui.shown[0], "waiting for device UUID=")) {
				t.Errorf("%s: shown %q", name, ui.shown)
			}
		})
	}
	d := &devices{resolve: func(crypttab.DeviceRef) (string, error) { return "", errors.New("no /sys") }}
	if _, err := d.await(t.Context(), "device", time.Minute, ref); err == nil || err.Error() != "no /sys" {
		t.Errorf("final: %v", err)
	}
}

// TestOptionalVolumesDoNotHoldTheBootUp: one whose disk is absent and one that wants a
// passphrase.
func TestOptionalVolumesDoNotHoldTheBootUp(t *testing.T) {
	b := newBench(t)
	b.grace = 100 * time.Millisecond
	image, key := newImage(t), b.file(t, "k", rightKey)
	err := b.attachLines(t, fmt.Sprintf("root %[1]s %[2]s\nmedia UUID=%[3]s - nofail\nnet UUID=%[3]s - _netdev\nhome %[1]s - nofail,password-cache=no\nfast %[1]s %[2]s nofail\n", image, key, uuid3))
	if err != nil || len(b.mapped) != 2 {
		t.Errorf("%v, mapped %+v", err, b.mapped)
	}
	if got := strings.Count(b.messages.String(), errOptional.Error()); got != 3 {
		t.Errorf("%d of 3 told: %s", got, b.messages)
	}
}

// TestInitrdWithoutCrypttabIsAnError: the image was made without the file.
func TestInitrdWithoutCrypttabIsAnError(t *testing.T) {
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	if err := (&attachAll{initrd: true}).run(b.app, nil); !errors.Is(err, errNothingInInitrd) {
		t.Error(err)
	}
	if err := (&attachAll{}).run(b.app, nil); err != nil {
		t.Errorf("without --initrd: %v", err)
	}
}

// TestCrypttabThatMkinitramfsLeftWritable is taken from an unpacked image only.
func TestCrypttabThatMkinitramfsLeftWritable(t *testing.T) {
	testenv.NeedRoot(t) // whose crypttab has to be
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	path := b.file(t, "crypttab", "a /dev/a none\n")
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	for _, unpacked := range []bool{true, false} {
		b.inMemory = func(string) bool { return unpacked }
		entries, err := b.entries(path, true)
		if (err == nil) != unpacked || unpacked && (len(entries) != 1 || !strings.Contains(b.messages.String(), "mode 0664")) {
			t.Errorf("unpacked %v: %v, %v, %s", unpacked, entries, err, b.messages)
		}
	}
}

// TestUpperDeviceThatComesLaterIsWaitedFor: the paths of a multipath device are there
// first, each with the UUID.
func TestUpperDeviceThatComesLaterIsWaitedFor(t *testing.T) {
	t.Parallel()
	ref := crypttab.ParseDeviceRef("UUID=" + uuid3)
	both := &severalError{ref.String(), []string{"/dev/sda", "/dev/sdb"}}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		d := &devices{ui: &screen{}, watch: eventsAt(2 * time.Second), resolve: func(crypttab.DeviceRef) (string, error) {
			if time.Since(start) >= 2*time.Second {
				return "/dev/mapper/mpatha", nil
			}
			return "", both
		}}
		if node, err := d.await(t.Context(), "device", time.Minute, ref); err != nil || node != "/dev/mapper/mpatha" {
			t.Errorf("%s, %v", node, err)
		}
		d.resolve = func(crypttab.DeviceRef) (string, error) { return "", both }
		if _, err := d.await(t.Context(), "device", time.Minute, ref); !errors.Is(err, tokens.ErrTimeout) || err.Error() != both.Error() {
			t.Errorf("never: %v", err)
		}
	})
}
