package dmcrypt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

func TestGuestAttachRefuses(t *testing.T) {
	testenv.NeedGuest(t)
	disk := ramDisk(t)
	v := format(t, disk, "luks2-512")
	other := format(t, ramDisk(t), "luks2-other")
	attach(t, other.request("other"))
	for _, tt := range []struct {
		name   string
		change func(*Request)
		want   error
		text   string
	}{
		{"unknown cipher", func(r *Request) { r.Segment.Encryption = "rot13-xts-plain64" }, ErrUnsupported, "rot13"},
		{"key of a wrong length", func(r *Request) { r.Key = secret.New(63) }, ErrUnsupported, "504 bits"},
		{"no device", func(r *Request) { r.Device = "/dev/nothing" }, os.ErrNotExist, "/dev/nothing"},
		{"folder", func(r *Request) { r.Device = "/dev" }, ErrDevice, "neither"},
		{"character device", func(r *Request) { r.Device = "/dev/zero" }, ErrDevice, "neither"},
		{"too small", func(r *Request) { r.Segment.Size = 1 << 30 }, ErrDevice, "only"},
		{"mapped under another name", func(r *Request) { r.Device = other.device }, ErrInUse, `"other"`},
		{"name of another volume", func(r *Request) { r.Name = "other" }, ErrNameTaken, other.uuid[:8]},
		{"active", func(r *Request) { *r = *other.request("other") }, ErrActive, ""},
		{"same UUID on another device", func(r *Request) { *r = *other.request("other"); r.Device = disk }, ErrNameTaken, other.device},
		{"same UUID under a name that gives the same mapping UUID", func(r *Request) { r.UUID = other.uuid; r.Name = "other" }, ErrNameTaken, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := v.request("vol")
			tt.change(r)
			err := Attach(t.Context(), r)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			if m := mappings(t); m != "other" {
				t.Errorf("left mapped: %s", m)
			}
		})
	}
	t.Run("mounted", func(t *testing.T) {
		d := ramDisk(t)
		testenv.Run(t, "busybox", "mke2fs", "-F", d)
		testenv.Run(t, "modprobe", "ext4")
		testenv.Run(t, "mount", "-t", "ext2", d, "/mnt")
		defer testenv.Run(t, "umount", "/mnt")
		r := v.request("vol")
		r.Device = d
		if err := Attach(t.Context(), r); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v", err)
		}
	})
}

// cancelling is a context that ends when it has been asked n times.
type cancelling struct {
	context.Context
	n    atomic.Int32
	done chan struct{}
}

func (c *cancelling) Err() error {
	if left := c.n.Add(-1); left == 0 {
		close(c.done)
	} else if left > 0 {
		return nil
	}
	return context.Canceled
}

func (c *cancelling) Done() <-chan struct{} { return c.done }

func TestGuestCancelledAttachLeavesNothing(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	for n := int32(1); ; n++ {
		ctx := &cancelling{Context: context.Background(), done: make(chan struct{})}
		ctx.n.Store(n)
		err := Attach(ctx, v.request("vol"))
		if err == nil {
			if n < 4 {
				t.Errorf("the context was asked %d times only", n-1)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at the %dth look: %v", n, err)
		}
		nothingMapped(t)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
}

// warnings collects what Attach tells besides its error.
func warnings(r *Request) *[]string {
	var list []string
	r.Warn = func(err error) { list = append(list, err.Error()) }
	return &list
}

// TestGuestMappingWithoutATableIsTakenAway: what a process leaves that is killed
// between making a mapping and loading its table, or before starting it.
func TestGuestMappingWithoutATableIsTakenAway(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	uuid := "CRYPT-LUKS2-" + strings.ReplaceAll(v.uuid, "-", "") + "-vol"
	for _, loaded := range []bool{false, true} {
		testenv.Run(t, "dmsetup", "create", "vol", "--notable", "--uuid", uuid)
		if loaded {
			testenv.Run(t, "dmsetup", "load", "vol", "--table", "0 8 error")
		}
		r := v.request("vol")
		warned := warnings(r)
		attach(t, r)
		if len(*warned) != 1 || !strings.Contains((*warned)[0], "had no table") {
			t.Errorf("warnings %q", *warned)
		}
		if _, err := Detach(t.Context(), "vol", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGuestMappingWithoutATableOfAnotherVolumeStays, and one that somebody has
// open.
func TestGuestMappingWithoutATableOfAnotherVolumeStays(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	for uuid, want := range map[string]error{
		"CRYPT-LUKS2-00000000000000000000000000000000-vol":            ErrNameTaken,
		"CRYPT-LUKS2-" + strings.ReplaceAll(v.uuid, "-", "") + "-vol": ErrBusy,
	} {
		testenv.Run(t, "dmsetup", "create", "vol", "--notable", "--uuid", uuid)
		testenv.Run(t, "dmsetup", "load", "vol", "--table", "0 8 error") // before Linux 5.15 it can be opened without, too
		node := filepath.Join(t.TempDir(), "node")                       // none in /dev/mapper before it lives
		info, err := lookUp("vol")
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(info.DevNo)); err != nil {
			t.Fatal(err)
		}
		user, err := os.Open(node)
		if err != nil {
			t.Fatal(err)
		}
		if err := Attach(t.Context(), v.request("vol")); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", uuid, err, want)
		}
		if m := mappings(t); m != "vol" {
			t.Errorf("%s: mapped are %s", uuid, m)
		}
		_ = user.Close()
		testenv.Run(t, "dmsetup", "remove", "vol")
	}
}

// TestGuestReadOnlyRunIsAWarning: with init=/bin/sh nothing can be told to a
// later udevd.
func TestGuestReadOnlyRunIsAWarning(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	testenv.Run(t, "mkdir", "-p", "/run/udev")
	testenv.Run(t, "mount", "-t", "tmpfs", "-o", "ro", "none", "/run/udev")
	defer testenv.Run(t, "umount", "/run/udev")
	r := v.request("vol")
	warned := warnings(r)
	attach(t, r)
	if len(*warned) != 1 || !strings.Contains((*warned)[0], "later udevd") {
		t.Errorf("warnings %q", *warned)
	}
	if f, err := os.Open("/dev/mapper/vol"); err != nil {
		t.Error(err)
	} else {
		_ = f.Close()
	}
}
