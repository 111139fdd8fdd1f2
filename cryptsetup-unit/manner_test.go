package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
)

// TestScriptsThatCallSystemdsNameNeitherWaitNorAreAsked: what snapd and installers call.
// A unit of the system is asked for a passphrase whatever fails.
func TestScriptsThatCallSystemdsNameNeitherWaitNorAreAsked(t *testing.T) {
	t.Parallel()
	wrong := func(m manner, options string) (questions int, status int, took time.Duration) {
		b := newBench(t)
		b.manner = m
		asked := b.agent(t, "+"+rightPassphrase)
		start := time.Now()
		_, err := b.run(t, "vol", newImage(t), b.file(t, "k", "wrong"), "password-cache=no,"+options)
		return len(asked()), m.status(err), time.Since(start)
	}
	const name = "systemd-cryptsetup"
	for what, c := range map[string]struct {
		manner    manner
		options   string
		questions int
		status    int
	}{
		"script, one try":   {systemdManner{name, true}, "tries=1", 0, 1},
		"script, two tries": {systemdManner{name, true}, "tries=2", 1, 0},
		"script, no limit":  {systemdManner{name, true}, "tries=0", 1, 0},
		"unit, one try":     {systemdManner{name, false}, "tries=1", 1, 0},
		"our name, one try": {ownManner{"cryptsetup-unit"}, "tries=1", 1, 0},
	} {
		if questions, status, _ := wrong(c.manner, c.options); questions != c.questions || status != c.status {
			t.Errorf("%s: %d questions, status %d", what, questions, status)
		}
	}
	start := time.Now()
	if _, errOut, status := command(t, name, "attach", "v", "/dev/disk/by-uuid/"+uuid3); status != 1 || !strings.Contains(errOut, "device /dev/disk/by-uuid/"+uuid3+" is not there") {
		t.Errorf("status %d: %s", status, errOut)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("a device that is not there takes a script %v", took)
	}
}

// TestKeyFromAPipe is what snapd gives: /dev/stdin, a FIFO, and one that nobody writes.
func TestKeyFromAPipe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fifo := filepath.Join(b.root, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(200 * time.Millisecond) // nobody has it open before
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer w.Close()
		_, _ = w.WriteString(rightKey[:3])
		time.Sleep(100 * time.Millisecond)
		_, _ = w.WriteString(rightKey[3:])
	}()
	r, err := b.run(t, "vol", newImage(t), fifo, "headless,key-slot=-1")
	if err != nil || r.Opened.By != "key file "+fifo {
		t.Fatalf("%v, %+v", err, r)
	}
	k := keyFile{path: fifo, timeout: 100 * time.Millisecond}
	if _, err := k.read(context.Background()); cli.ExitStatus(err) != cli.ExitTimedOut {
		t.Errorf("nobody writes: %v", err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { stop(&cli.SignalError{Signal: os.Interrupt}) })
	k.timeout = time.Minute
	if _, err := k.read(ctx); cli.ExitStatus(err) != cli.ExitCancelled {
		t.Errorf("interrupted: %v", err)
	}
}

// TestVersionOfTheTwoNames: scripts compare the number of systemd's.
func TestVersionOfTheTwoNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"systemd-cryptsetup": "systemd 262 (luksmith ", "cryptsetup-unit": "cryptsetup-unit "} {
		if out, errOut, status := command(t, name, "--version"); status != 0 || !strings.HasPrefix(out, want) {
			t.Errorf("%s: status %d: %s%s", name, status, out, errOut)
		}
	}
}

// TestImageFromTheWorkingFolder is named as for cryptsetup.
func TestImageFromTheWorkingFolder(t *testing.T) {
	image := newImage(t)
	t.Chdir(filepath.Dir(image))
	b := newBench(t)
	if _, err := b.run(t, "vol", filepath.Base(image), b.file(t, "k", rightKey), "headless"); err != nil || b.mapped[0].Device != image {
		t.Errorf("%v, %+v", err, b.mapped)
	}
}
