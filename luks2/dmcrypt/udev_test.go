package dmcrypt

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// The tests in this file start udevd themselves: they run in a guest that has one.

const udevd = "/usr/lib/systemd/systemd-udevd"

// startUdevd runs udevd until the end of the test or until the returned function
// is called.
func startUdevd(t *testing.T) (process *os.Process, stop func()) {
	t.Helper()
	testenv.NeedGuest(t)
	if _, err := os.Stat(udevd); err != nil {
		testenv.NotApplicable(t, "no udevd in this guest")
	}
	cmd := exec.Command(udevd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = os.RemoveAll("/run/udev")
			_ = os.RemoveAll("/dev/disk")
		}
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); !udevWorks(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("udevd does not listen")
		}
	}
	return cmd.Process, stop
}

func settle(t *testing.T) {
	t.Helper()
	testenv.Run(t, "udevadm", "settle")
}

// link is what udev made of /dev/mapper/vol; empty if it is not a link.
func link() string {
	target, _ := os.Readlink("/dev/mapper/vol")
	return filepath.Base(target)
}

func cookies(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sysvipc/sem")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n") - 1
}

func TestUdevMakesTheLink(t *testing.T) {
	startUdevd(t)
	v := format(t, ramDisk(t), "luks2-512")
	attach(t, v.request("vol"))
	if l := link(); !strings.HasPrefix(l, "dm-") { // there when Attach returns
		t.Errorf("/dev/mapper/vol leads to %q", l)
	}
	records, _ := filepath.Glob("/run/udev/data/b25*:0")
	if len(records) != 1 {
		t.Fatalf("records: %v", records)
	}
	record, err := os.ReadFile(records[0])
	if err != nil || !strings.Contains(string(record), "E:DM_NAME=vol\n") || !strings.Contains(string(record), "E:"+strings.TrimPrefix(udevRecordText, "E:")) {
		t.Errorf("udev knows %s, %v", record, err)
	}
	if links, _ := filepath.Glob("/dev/disk/by-id/dm-uuid-CRYPT-LUKS2-" + strings.ReplaceAll(v.uuid, "-", "") + "-vol"); len(links) != 1 {
		t.Error("no link with the UUID")
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat("/dev/mapper/vol"); !errors.Is(err, os.ErrNotExist) { // gone when Detach returns
		t.Errorf("the link is still there: %v", err)
	}
	if n := cookies(t); n != 0 {
		t.Errorf("%d semaphores are left", n)
	}
}

func TestUdevThatDoesNotAnswer(t *testing.T) {
	process, stop := startUdevd(t)
	v := format(t, ramDisk(t), "luks2-512")
	settle(t)
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	attached := make(chan error)
	go func() { attached <- Attach(ctx, v.request("vol")) }()
	<-ctx.Done()
	// The removal waits for udevd too, which it needs to do its part.
	time.Sleep(500 * time.Millisecond)
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-attached; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	settle(t)
	stop()
	nothingMapped(t)
	if n := cookies(t); n != 0 {
		t.Errorf("%d semaphores are left", n)
	}
}

// TestUdevWithoutSemaphoresIsAWarning: where System V IPC is missing or used up
// the mapping is made all the same, and udev's link is there.
func TestUdevWithoutSemaphoresIsAWarning(t *testing.T) {
	startUdevd(t)
	const limits = "/proc/sys/kernel/sem"
	old, err := os.ReadFile(limits)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limits, []byte("32000 1024000000 500 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(limits, old, 0o644) }()
	v := format(t, ramDisk(t), "luks2-512")
	r := v.request("vol")
	warned := warnings(r)
	attach(t, r)
	if len(*warned) != 1 || !strings.Contains((*warned)[0], "cookie") {
		t.Errorf("warnings %q", *warned)
	}
	// Nobody waited for udevd, which makes the link when it gets to it.
	for range 600 {
		if strings.HasPrefix(link(), "dm-") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if l := link(); !strings.HasPrefix(l, "dm-") {
		t.Errorf("/dev/mapper/vol leads to %q", l)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
	settle(t)
	nothingMapped(t)
}

// TestALiveSocketOfAnyTypeIsUdevd: systemd 262 listens on a stream. A file that
// is left of a dead one is none.
func TestALiveSocketOfAnyTypeIsUdevd(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "unixpacket"} {
		path := filepath.Join(t.TempDir(), "control")
		l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if link := path + ".link"; os.Symlink(path, link) != nil || !socketLives(path) || !socketLives(link) {
			t.Errorf("%s: not seen", network)
		}
		_ = l.Close()
		if socketLives(path) {
			t.Errorf("%s: the socket of a dead process is taken for udevd", network)
		}
	}
}

// TestUdevThatStartsLater is a system whose initrd has no udevd: the one of the
// real root sees the mapping first when it goes through all devices.
func TestUdevThatStartsLater(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	for name, record := range map[string]bool{"with the record": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			attach(t, v.request("vol"))
			if l := link(); l != "." {
				t.Fatalf("there is a link to %q without udevd", l)
			}
			if !record { // shows that it is the record that udevd goes by
				if err := os.RemoveAll("/run/udev"); err != nil {
					t.Fatal(err)
				}
			}
			startUdevd(t)
			testenv.Run(t, "udevadm", "trigger", "--action=add", "--subsystem-match=block")
			settle(t)
			links, _ := filepath.Glob("/dev/disk/by-id/dm-name-vol")
			if (len(links) == 1) != record {
				t.Errorf("udevd made the links %v", links)
			}
		})
	}
}
