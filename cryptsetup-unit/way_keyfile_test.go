package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
)

func TestKeyFilesAreDiscovered(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"etc", "run"} {
		b := newBench(t)
		path := b.file(t, dir+"/cryptsetup-keys.d/vol.key", rightKey)
		// Offset and size are for the configured file only.
		r, err := b.run(t, "vol", newImage(t), "-", "headless,keyfile-size=3,keyfile-offset=2,keyfile-erase")
		if err != nil || r.Opened.By != "key file "+path {
			t.Errorf("%s: %v, %+v", dir, err, r)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("a discovered key file was erased: %v", err)
		}
	}
}

func TestFirstDiscoveredKeyFileCounts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.file(t, "etc/cryptsetup-keys.d/vol.key", "wrong")
	b.file(t, "run/cryptsetup-keys.d/vol.key", rightKey)
	if r, err := b.run(t, "vol", newImage(t), "-", "headless"); cli.ExitStatus(err) != cli.ExitNoKey {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestKeyFileOffsetAndSize(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := b.file(t, "k", "xx"+rightKey+"yy")
	if _, err := b.run(t, "vol", newImage(t), path, fmt.Sprintf("headless,keyfile-offset=2,keyfile-size=%d", len(rightKey))); err != nil {
		t.Error(err)
	}
}

func TestKeyFileIsErasedWhetherItOpensOrNot(t *testing.T) {
	t.Parallel()
	for _, content := range []string{rightKey, "wrong"} {
		b := newBench(t)
		path := b.file(t, "k", content)
		_, err := b.run(t, "vol", newImage(t), path, "headless,keyfile-erase")
		if (err == nil) != (content == rightKey) {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q is still there", content)
		}
	}
}

func TestKeyFileOnAnotherDeviceIsNotErased(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	root := t.TempDir()
	path := write(t, filepath.Join(root, "key"), []byte(rightKey), 0o600)
	b.mount = func(context.Context, string) (string, func() error, error) {
		return root, func() error { return nil }, nil
	}
	r, err := b.run(t, "vol", newImage(t), "/key:"+b.file(t, "stick", ""), "headless,keyfile-erase")
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "keyfile-erase: /key:") {
		t.Errorf("%v, warnings %q", err, r.Warnings)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestHowLongTheKeyDeviceIsWaitedFor: 24*time.Hour without end where nobody can type.
func TestHowLongTheKeyDeviceIsWaitedFor(t *testing.T) {
	t.Parallel()
	for options, want := range map[string][2]time.Duration{ // when somebody is asked, and not
		"":                              {crypttab.Forever, deviceWait},
		"timeout=20":                    {deviceWait, deviceWait},
		"timeout=5min":                  {5 * time.Minute, deviceWait},
		"keyfile-timeout=7":             {7 * time.Second, 7 * time.Second},
		"keyfile-timeout=0,timeout=1":   {crypttab.Forever, crypttab.Forever},
		"keyfile-timeout=3min,headless": {3 * time.Minute, 3 * time.Minute},
	} {
		j, _, err := newJob(crypttab.Entry{Name: "a", Source: crypttab.LiteralDeviceRef("/dev/x"), Options: options}, newGrammar())
		if err != nil {
			t.Fatal(err)
		}
		for i, asked := range []bool{true, false} {
			if got := j.keyDeviceWait(asked); got != want[i] {
				t.Errorf("%q, asked %v: %v, want %v", options, asked, got, want[i])
			}
		}
	}
}

// TestKeyOnBareDeviceIsWaitedFor: a stick without a file system, plugged in late.
func TestKeyOnBareDeviceIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image, key := newImage(t), b.file(t, "k", "xx"+rightKey)
	b.devices.watch = eventsAt(10 * time.Millisecond)
	looks := 0
	b.devices.resolve = func(ref crypttab.DeviceRef) (string, error) {
		if ref.Value == image {
			return image, nil
		}
		if looks++; looks < 3 {
			return "", fs.ErrNotExist
		}
		return key, nil
	}
	r, err := b.run(t, "vol", image, "/dev/luksmith-absent", "headless,keyfile-offset=2,keyfile-timeout=20")
	if err != nil || r.Opened.By != "key file /dev/luksmith-absent" {
		t.Errorf("%v after %d looks, %+v", err, looks, r.Opened)
	}
}
