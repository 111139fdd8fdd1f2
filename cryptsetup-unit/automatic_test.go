package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/contest"
	"luksmith/internal/test/testenv"
	"luksmith/tokens"
)

// attachAllOn is attach-all with its words on the bench.
func (b *bench) attachAllOn(t *testing.T, c *attachAll, lines string, names ...string) error {
	t.Helper()
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	c.crypttab = b.file(t, "etc/crypttab", lines)
	w, err := c.wanted(b.app, names)
	if err != nil {
		return err
	}
	jobs, errs, err := b.planSome(c.crypttab, c.initrd, w)
	if err != nil {
		return err
	}
	errs = append(errs, w.missing()...)
	if !c.automatic {
		return b.attachJobs(jobs, errs)
	}
	au := newAutomatic(b.root, limitOr(c.limit, workLimit))
	for _, j := range jobs {
		au.bound(j)
	}
	b.setAutomatic(au)
	return errors.Join(append(errs, b.attachFirst(jobs))...)
}

// TestOnlyAutomaticLeavesTheQuestionToOthers: what a key file opens is attached, for the
// rest nobody is asked and nothing is an error.
func TestOnlyAutomaticLeavesTheQuestionToOthers(t *testing.T) {
	b := newBench(t)
	asked := b.agent(t, "+"+rightPassphrase)
	image, key := newImage(t), b.file(t, "k", rightKey)
	start := time.Now()
	err := b.attachAllOn(t, &attachAll{automatic: true}, fmt.Sprintf("a %[1]s %[2]s\nb %[1]s none password-cache=no\nc %[1]s /nothing luks,password-cache=no\nd /nowhere %[2]s\n"+
		"e %[1]s %[2]s noauto\nf %[1]s arg keyscript=/bin/x,password-cache=no\n", image, key))
	if got := b.names(); err != nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%v, attached %v", err, got)
	}
	if took := time.Since(start); took > 5*time.Second || len(asked()) != 0 {
		t.Errorf("took %v, asked %v", took, asked())
	}
	if strings.Contains(b.messages.String(), "attaching b") {
		t.Errorf("nothing is wrong with a volume that wants a passphrase: %s", b.messages)
	}
}

func TestAttachAllWithNames(t *testing.T) {
	b := newBench(t)
	image, key := newImage(t), b.file(t, "k", rightKey)
	lines := fmt.Sprintf("a %[1]s %[2]s\nb %[1]s %[2]s noauto\nc\\x20d %[1]s %[2]s\n", image, key)
	err := b.attachAllOn(t, &attachAll{}, lines, "b", `c\x20d`, "zz")
	if got := b.names(); !slices.Equal(got, []string{"b", "c d"}) {
		t.Errorf("attached %v", got)
	}
	if err == nil || !strings.Contains(err.Error(), `"zz"`) {
		t.Errorf("an unknown name is an error: %v", err)
	}
}

func TestOnlyAutomaticObeysTheSwitch(t *testing.T) {
	for name, tt := range map[string]struct {
		file, cmdline string
		names, want   []string
	}{
		"no file":           {"", "", nil, []string{"a", "b"}},
		"one name":          {"b", "", nil, []string{"b"}},
		"all":               {"all", "", nil, []string{"a", "b"}},
		"nothing":           {"#\n", "", nil, nil},
		"named by the call": {"b", "", []string{"a"}, []string{"a"}},
		"off for this boot": {"all", "luksmith=no", nil, nil},
		"off, and named":    {"all", "quiet luksmith=0", []string{"a"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.file != "" {
				b.file(t, "etc/luksmith/boot", tt.file)
			}
			t.Setenv("SYSTEMD_PROC_CMDLINE", tt.cmdline)
			w, err := (&attachAll{automatic: true}).wanted(b.app, tt.names)
			if err != nil {
				t.Fatal(err)
			}
			jobs, _, err := b.planSome(b.file(t, "etc/crypttab", "a /dev/a\nb /dev/b\nn /dev/n none noauto\n"), false, w)
			var got []string
			for _, j := range jobs {
				got = append(got, j.entry.Name)
			}
			if err != nil || !slices.Equal(got, tt.want) || len(w.missing()) != 0 {
				t.Errorf("%v %v %v", got, err, w.missing())
			}
		})
	}
}

// TestDarkScreen: how long a run goes on that nobody can see.
func TestDarkScreen(t *testing.T) {
	t.Parallel()
	work := func(d time.Duration) func(context.Context, func(bool)) error {
		return func(ctx context.Context, _ func(bool)) error {
			select {
			case <-time.After(d):
				return errors.New("no")
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	wait := func(ctx context.Context, busy func(bool)) error {
		busy(false)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for name, tt := range map[string]struct {
		limit time.Duration
		open  func(context.Context, func(bool)) error
		key   time.Duration // when one is pressed
		took  time.Duration
		left  bool
	}{
		"nothing could help":         {15 * time.Second, func(context.Context, func(bool)) error { return errors.New("no") }, 0, 0, false},
		"the device is absent":       {15 * time.Second, wait, 0, 3 * time.Second, true},
		"absent, without limit":      {0, wait, 0, 0, true},
		"the device hangs":           {15 * time.Second, work(time.Hour), 0, 15 * time.Second, true},
		"it hangs, without limit":    {0, work(time.Hour), 0, 15 * time.Second, true},
		"it takes its time":          {0, work(9 * time.Second), 0, 9 * time.Second, false},
		"somebody types a PIN":       {15 * time.Second, work(time.Hour), 14 * time.Second, 44 * time.Second, true},
		"somebody typed and is done": {15 * time.Second, work(16 * time.Second), 14 * time.Second, 16 * time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			as := &attacher{app: &app{root: t.TempDir()}}
			au := newAutomatic(as.root, tt.limit)
			as.setAutomatic(au)
			at := &attempt{as: as, job: &job{options: &crypttab.Options{}}}
			c := &contest.Contest{Ways: []contest.Way{funcWay(tt.open)}, Patience: contest.Patience, Settle: contest.SettleTime}
			au.arrange(at, c)
			if tt.key != 0 {
				time.AfterFunc(tt.key, au.key)
			}
			start := time.Now()
			_, _, err := c.Run(t.Context())
			if took := time.Since(start); took != tt.took || errors.Is(err, errLeft) != tt.left {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			at.closeAskers()
			synctest.Wait()
		})
	}
}

// funcWay is a way that never has a key.
type funcWay func(context.Context, func(bool)) error

func (funcWay) Name() string { return "way" }
func (w funcWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	return nil, w(ctx, busy)
}

// TestSignOfLife: initrd/first does not end a process that is at work, and less so one
// that somebody types into.
func TestSignOfLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		au := newAutomatic(t.TempDir(), time.Second)
		stop := au.live()
		for i, want := range []string{"working\n", "working\n", "typing\n", "typing\n"} {
			if i == 2 {
				au.key()
			}
			time.Sleep(signTime)
			synctest.Wait()
			if got, err := os.ReadFile(au.sign); err != nil || string(got) != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
			_ = os.Truncate(au.sign, 0) // as initrd/first does
		}
		stop()
		if _, err := os.Stat(au.sign); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the file stays")
		}
	})
}

// TestTokenOfTheHeaderIsHopedFor: a key that is plugged in while the initrd starts.
func TestTokenOfTheHeaderIsHopedFor(t *testing.T) {
	b := newBench(t)
	p := &plug{script: []func(*tokens.UnlockRequest) error{absent, absent, opens}, passphrase: rightKey}
	b.newHandlers = stub(p)
	b.devices.watch = eventsAt(time.Second)
	if err := b.attachAllOn(t, &attachAll{automatic: true}, "a "+imageWithToken(t, "systemd-tpm2")+" none password-cache=no\n"); err != nil || len(b.names()) != 1 {
		t.Errorf("%v, attached %v, %d calls", err, b.names(), p.calls)
	}
}

// TestPINIsAskedForBeforeTheOtherProgram: only the passphrase is left to it.
func TestPINIsAskedForBeforeTheOtherProgram(t *testing.T) {
	b := newBench(t)
	p := &plug{script: []func(*tokens.UnlockRequest) error{opens}, passphrase: rightKey, asks: true}
	b.newHandlers = stub(p)
	asked := b.agent(t, "+1234")
	if err := b.attachAllOn(t, &attachAll{automatic: true}, "a "+imageWithToken(t, "systemd-tpm2")+" none password-cache=no\n"); err != nil || len(b.names()) != 1 || len(asked()) != 1 {
		t.Errorf("%v, attached %v, asked %v", err, b.names(), asked())
	}
}

func TestFirstComesBackInAnyCase(t *testing.T) {
	dir := t.TempDir()
	first := filepath.Join(dir, "first")
	text, err := os.ReadFile("initrd/first")
	if err != nil {
		t.Fatal(err)
	}
	write(t, first, text, 0o755)
	for name, tt := range map[string]struct {
		program string
		status  int
		fast    bool
	}{
		"missing": {"", 0, true}, "crashes": {"#!/bin/sh\nkill -SEGV $$\n", 0, true}, "fails": {"#!/bin/sh\nexit 7\n", 0, true},
		"no program": {"\x7fELF", 0, true}, "hangs": {"#!/bin/sh\nexec sleep 1000\n", 0, false}, "ignores": {"#!/bin/sh\ntrap '' TERM INT\nwhile :; do sleep 1; done\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			program := "unit-" + strings.ReplaceAll(name, " ", "-")
			if tt.program != "" {
				write(t, filepath.Join(dir, program), []byte(tt.program), 0o755)
			}
			t.Parallel()
			for _, shell := range []string{"dash", "bash", "busybox"} {
				start := time.Now()
				out, status := runFirst(t, shell, first, program)
				took := time.Since(start)
				if status != tt.status || tt.fast != (took < time.Second) || took > 8*time.Second {
					t.Errorf("%s: status %d after %v: %s", shell, status, took, out)
				}
			}
		})
	}
}

// TestFirstWaitsForWhoIsAtWork: as long as there is a sign of life, and no longer.
func TestFirstWaitsForWhoIsAtWork(t *testing.T) {
	text, err := os.ReadFile("initrd/first")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		program, limit string
		killed         bool
	}{
		"at work":        {"for n in 1 2 3 4 5; do echo working >$sign; sleep 1; done", "60", false},
		"stops working":  {"echo working >$sign; exec sleep 1000", "60", true},
		"works too long": {"while :; do echo working >$sign; sleep 1; done", "3", true},
		"types":          {"for n in 1 2 3 4 5 6; do echo typing >$sign; sleep 1; done", "3", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first := filepath.Join(dir, "first")
			quick := strings.NewReplacer("-lt 10 ]", "-lt 3 ]", "/run/luksmith", dir).Replace(string(text))
			write(t, first, []byte(quick), 0o755)
			write(t, filepath.Join(dir, "unit"), []byte("#!/bin/sh\nsign="+dir+"/alive.$$\n"+tt.program+"\n"), 0o755)
			out, err := exec.Command(first, tt.limit, "unit").CombinedOutput()
			if killed := strings.Contains(string(out), "did not end"); err != nil || killed != tt.killed {
				t.Errorf("%v: %q", err, out)
			}
			if left, _ := filepath.Glob(dir + "/alive.*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// runFirst runs initrd/first with a limit of two seconds under a shell.
func runFirst(t *testing.T, shell string, args ...string) (out string, status int) {
	t.Helper()
	words := append([]string{args[0], "2"}, args[1:]...)
	if shell == "busybox" {
		words = append([]string{"sh"}, words...)
	}
	cmd := exec.Command(shell, words...)
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		testenv.NotApplicable(t, shell+" is not here")
	}
	return string(b), cmd.ProcessState.ExitCode()
}
