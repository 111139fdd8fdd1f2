package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// udevMessage is what udevd sends: header and properties.
func udevMessage(properties string) []byte {
	b := append([]byte("libudev\x00"), make([]byte, 32)...)
	binary.BigEndian.PutUint32(b[8:], 0xfeedcafe)
	binary.NativeEndian.PutUint32(b[12:], 40)
	binary.NativeEndian.PutUint32(b[16:], 40)
	binary.NativeEndian.PutUint32(b[20:], uint32(len(properties)))
	return append(b, properties...)
}

func TestParseUevent(t *testing.T) {
	t.Parallel()
	const kernel = "add@/devices/pci/block/sda\x00ACTION=add\x00DEVPATH=/devices/pci/block/sda\x00SUBSYSTEM=block\x00DEVNAME=sda\x00"
	const udev = "UDEV_DATABASE_VERSION=1\x00ACTION=change\x00SUBSYSTEM=hidraw\x00"
	damaged := func(change func([]byte)) []byte { b := udevMessage(udev); change(b); return b }
	for name, tt := range map[string]struct {
		group uint32
		in    []byte
		want  *uevent
	}{
		"kernel":               {kernelEvents, []byte(kernel), &uevent{"add", "block"}},
		"udev":                 {udevEvents, udevMessage(udev), &uevent{"change", "hidraw"}},
		"kernel's to udev":     {udevEvents, []byte(kernel), nil},
		"no subsystem":         {kernelEvents, []byte("add@/x\x00ACTION=add\x00"), nil},
		"nothing":              {kernelEvents, nil, nil},
		"only a header":        {udevEvents, udevMessage("")[:39], nil},
		"wrong magic":          {udevEvents, damaged(func(b []byte) { b[8] = 0 }), nil},
		"offset in the header": {udevEvents, damaged(func(b []byte) { b[16] = 8 }), nil},
		"offset beyond":        {udevEvents, damaged(func(b []byte) { b[17] = 0xff }), nil},
		"length beyond":        {udevEvents, damaged(func(b []byte) { b[23] = 0xff }), nil},
	} {
		got := parseUevent(tt.group, tt.in)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add(uint32(kernelEvents), []byte("add@/x\x00ACTION=add\x00SUBSYSTEM=block\x00"))
	f.Add(uint32(udevEvents), udevMessage("ACTION=add\x00SUBSYSTEM=block\x00"))
	f.Fuzz(func(t *testing.T, group uint32, b []byte) {
		before := bytes.Clone(b)
		if e := parseUevent(group, b); e != nil && (e.action == "" || e.subsystem == "") {
			t.Errorf("%+v", e)
		}
		if !bytes.Equal(before, b) {
			t.Error("the input was changed")
		}
	})
}

// poke makes the kernel send an event of a block device.
func poke(t *testing.T, action string) {
	t.Helper()
	testenv.NeedGuest(t)
	if err := os.WriteFile("/sys/block/"+firstDisk(t)+"/uevent", []byte(action), 0); err != nil {
		t.Fatal(err)
	}
}

func firstDisk(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/sys/block/ram0"); err != nil {
		testenv.Run(t, "modprobe", "brd", "rd_nr=16", "rd_size=40960")
	}
	return "ram0"
}

// arrives reports whether something comes within a time.
func arrives(events <-chan struct{}, within time.Duration) bool {
	select {
	case _, open := <-events:
		return open
	case <-time.After(within):
		return false
	}
}

func TestGuestUevents(t *testing.T) {
	testenv.NeedGuest(t)
	firstDisk(t)
	ctx, stop := context.WithCancel(t.Context())
	block, err := watchUevents(ctx, "net", "block")
	if err != nil {
		t.Fatal(err)
	}
	other, err := watchUevents(ctx, "hidraw")
	if err != nil {
		t.Fatal(err)
	}
	poke(t, "add")
	if !arrives(block, 5*time.Second) {
		t.Error("no event for the device")
	}
	if !arrives(block, 5*time.Second) {
		t.Error("no second look")
	}
	poke(t, "remove")
	arrives(block, time.Second) // a disk that goes ends its question; udevd may keep that to itself
	if arrives(other, 0) {
		t.Error("an event of a subsystem that nobody asked for")
	}
	stop()
	if _, open := <-block; open {
		t.Error("the channel is open after the end of the context")
	}
}

func TestGuestLostUeventsAreReported(t *testing.T) {
	testenv.NeedGuest(t)
	firstDisk(t)
	s, err := openUevents(kernelEvents, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	for range 200 {
		poke(t, "change")
	}
	for range 200 {
		if _, err := s.next(); errors.Is(err, errLost) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("200 events fitted into a buffer of 4096 bytes")
}

// TestGuestForgedUevents sends what another program could.
func TestGuestForgedUevents(t *testing.T) {
	testenv.NeedGuest(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	events, err := watchUevents(ctx, "block")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = unix.Sendto(fd, []byte("add@/x\x00ACTION=add\x00SUBSYSTEM=block\x00"), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelEvents})
	if err != nil {
		t.Fatal(err)
	}
	if arrives(events, 500*time.Millisecond) {
		t.Error("a message that does not come from the kernel was believed")
	}
}

// TestOnlyDisksThatGoMatter: a disk that goes ends its question, a key that goes
// gives nobody more than before.
func TestOnlyDisksThatGoMatter(t *testing.T) {
	for e, want := range map[uevent]bool{{"add", "hidraw"}: true, {"remove", "hidraw"}: false, {"unbind", "tpmrm"}: false, {"remove", "block"}: true, {"add", "block"}: true} {
		if e.matters() != want {
			t.Errorf("%+v: %t", e, !want)
		}
	}
}
