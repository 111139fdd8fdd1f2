package dmcrypt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// The tests in this file map devices: they run in the guest of e2e.

func TestGuestMappingEqualsCryptsetups(t *testing.T) {
	testenv.NeedGuest(t)
	asLUKS1 := func(r *Request) { r.Type, r.Segment.Offset = LUKS1, 4096*512 }
	disk := ramDisk(t)
	for _, tt := range []struct {
		name   string
		header string
		open   []string // for cryptsetup open
		change func(*Request)
	}{
		{"LUKS2", "luks2-512", nil, func(*Request) {}},
		{"LUKS2 with sectors of 4096", "luks2-4096", nil, func(r *Request) { r.Segment.SectorSize = 4096 }},
		{"read-only", "luks2-512", []string{"--readonly"}, func(r *Request) { r.ReadOnly = true }},
		{"discard", "luks2-512", []string{"--allow-discards"}, func(r *Request) { r.Flags = AllowDiscards }},
		{"all flags", "luks2-512",
			[]string{"--perf-same_cpu_crypt", "--perf-submit_from_crypt_cpus", "--perf-no_read_workqueue", "--perf-no_write_workqueue", "--allow-discards"},
			func(r *Request) {
				r.Flags = AllowDiscards | SameCPUCrypt | SubmitFromCryptCPUs | NoReadWorkqueue | NoWriteWorkqueue | HighPriority
			}},
		{"detached header", "luks2-detached", nil, func(r *Request) { r.Segment.Offset = 0 }},
		{"another offset", "luks2-offset", nil, func(r *Request) { r.Segment.Offset = 8192 * 512 }},
		{"cipher with essiv", "luks2-essiv", nil,
			func(r *Request) { r.Segment.Encryption = "aes-cbc-essiv:sha256" }},
		{"LUKS1", "luks1", nil, asLUKS1},
		{"LUKS1 with discard", "luks1", []string{"--allow-discards"}, func(r *Request) { asLUKS1(r); r.Flags = AllowDiscards }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := format(t, disk, tt.header)
			v.open(t, "vol", tt.open...)
			want := seen(t)
			closeOther(t, "vol")
			r := v.request("vol")
			tt.change(r)
			attach(t, r)
			if got := seen(t); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if _, err := Detach(t.Context(), "vol", nil); err != nil {
				t.Error(err)
			}
			nothingMapped(t)
		})
	}
}

// TestGuestDiskWithBigSectors maps a disk whose own sectors have 4096 bytes.
func TestGuestDiskWithBigSectors(t *testing.T) {
	testenv.NeedGuest(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "modprobe", "loop")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	loop, err := configureFreeLoop(control, &unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	for _, size := range []string{"512", "4096"} {
		v := format(t, loop.Name(), "luks2-"+size)
		v.open(t, "vol")
		want := seen(t)
		closeOther(t, "vol")
		r := v.request("vol")
		r.Segment.SectorSize, _ = strconv.Atoi(size)
		attach(t, r)
		if got := seen(t); got != want {
			t.Errorf("sectors of %s:\ngot  %s\nwant %s", size, got, want)
		}
		if _, err := Detach(t.Context(), "vol", nil); err != nil {
			t.Error(err)
		}
	}
}

// TestGuestVolumeOnAnotherMapping is what a logical volume looks like.
func TestGuestVolumeOnAnotherMapping(t *testing.T) {
	disk := ramDisk(t)
	testenv.Run(t, "dmsetup", "create", "lv", "--table", "0 65536 linear "+disk+" 0")
	testenv.Run(t, "dmsetup", "mknodes", "lv") // which it leaves to a udevd that is not there
	defer closeOther(t, "lv")
	v := format(t, "/dev/mapper/lv", "luks2-512")
	attach(t, v.request("vol"))
	if i := mustStatus(t, "vol"); !strings.HasPrefix(i.Source, "/dev/dm-") || !i.over("/dev/mapper/lv") || i.over(disk) {
		t.Errorf("%+v", i)
	}
	r := v.request("vol2")
	r.Device = disk
	var busy *InUseError
	if err := Attach(t.Context(), r); !errors.As(err, &busy) || busy.Name != "lv" {
		t.Errorf("the disk below: %v", err)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
}

func TestGuestNamesEqualCryptsetups(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	for _, name := range []string{"vol b", "ü", "a:b@c", `a\x20b`, "x*y", strings.Repeat("n", 83)} {
		v.open(t, name)
		nodes, _ := filepath.Glob("/dev/mapper/[^c]*")
		want := seen(t) + fmt.Sprint(nodes)
		closeOther(t, name)
		attach(t, v.request(name))
		nodes, _ = filepath.Glob("/dev/mapper/[^c]*")
		if got := seen(t) + fmt.Sprint(nodes); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", name, got, want)
		}
		if i, err := Status(name); err != nil || i.Name != unmangle(name) || i.VolumeUUID != v.uuid {
			t.Errorf("%q: %+v, %v", name, i, err)
		}
		if _, err := Detach(t.Context(), name, nil); err != nil {
			t.Error(err)
		}
	}
	nothingMapped(t)
}

func TestGuestFileSystemSurvivesTheWayThroughBoth(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-4096")
	v.open(t, "vol")
	testenv.Run(t, "busybox", "mke2fs", "-F", "-b", "4096", "/dev/mapper/vol")
	testenv.Run(t, "modprobe", "ext4")
	testenv.Run(t, "mount", "-t", "ext2", "/dev/mapper/vol", "/mnt")
	if err := os.WriteFile("/mnt/hello", []byte("written through cryptsetup"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "umount", "/mnt")
	testenv.Run(t, "cryptsetup", "close", "vol")
	r := v.request("vol")
	r.Segment.SectorSize = 4096
	attach(t, r)
	testenv.Run(t, "mount", "-t", "ext2", "/dev/mapper/vol", "/mnt")
	got, err := os.ReadFile("/mnt/hello")
	if err != nil || string(got) != "written through cryptsetup" {
		t.Errorf("%q, %v", got, err)
	}
	t.Run("busy", func(t *testing.T) {
		start := time.Now()
		if _, err := Detach(t.Context(), "vol", nil); !errors.Is(err, ErrBusy) {
			t.Errorf("detaching a mounted volume: %v", err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("finding out that it is mounted took %v", d)
		}
		deferred, err := Detach(t.Context(), "vol", &DetachOptions{Deferred: true})
		if !deferred || err != nil {
			t.Errorf("deferred: %v, %v", deferred, err)
		}
		if i, err := Status("vol"); err != nil || !i.Doomed || i.Open == 0 {
			t.Errorf("%+v, %v", i, err)
		}
	})
	testenv.Run(t, "umount", "/mnt")
	nothingMapped(t)
}

// TestGuestKeyStaysInTheKernel attaches often while every processor is busy, so that
// goroutines move between threads.
func TestGuestKeyStaysInTheKernel(t *testing.T) {
	testenv.NeedGuest(t)
	v := format(t, ramDisk(t), "luks2-512")
	var stop atomic.Bool
	defer stop.Store(true)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for i := range 10 {
		if err := Attach(t.Context(), v.request("vol")); err != nil {
			t.Fatalf("attaching for the %dth time: %v", i+1, err)
		}
		_, _, params, err := tableStatus("vol")
		if err != nil {
			t.Fatal(err)
		}
		if want := ":64:logon:cryptsetup:" + v.uuid + "-d0 "; !strings.Contains(string(params.Bytes()), want) {
			t.Fatalf("table after attaching for the %dth time: %s", i+1, params.Bytes())
		}
		if _, err := Detach(t.Context(), "vol", nil); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	nothingMapped(t)
	for range 100 { // keys that nobody holds are collected in the background
		keys, _ := os.ReadFile("/proc/keys")
		if !strings.Contains(string(keys), v.uuid) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("the volume key is still in a keyring")
}

func TestGuestImageFile(t *testing.T) {
	testenv.NeedGuest(t)
	image := filepath.Join(t.TempDir(), "an image")
	if err := os.WriteFile(image, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "modprobe", "loop") // cryptsetup does not load it
	v := format(t, image, "luks2-512")
	attach(t, v.request("vol"))
	i, err := Status("vol")
	if err != nil || i.Image != image || !strings.HasPrefix(i.Source, "/dev/loop") || i.ReadOnly {
		t.Errorf("%+v, %v", i, err)
	}
	if err := Attach(t.Context(), v.request("vol")); !errors.Is(err, ErrActive) {
		t.Errorf("again: %v", err)
	}
	var busy *InUseError
	if err := Attach(t.Context(), v.request("vol2")); !errors.As(err, &busy) || busy.Name != "vol" {
		t.Errorf("under another name: %v", err)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
	nothingMapped(t)

	t.Run("read-only", func(t *testing.T) {
		r := v.request("vol")
		r.ReadOnly = true
		attach(t, r)
		if out := testenv.Run(t, "cat", "/sys/block/dm-0/ro", "/sys/block/dm-0/slaves/"+filepath.Base(mustStatus(t, "vol").Source)+"/ro"); out != "1\n1\n" {
			t.Errorf("read-only: mapping, loop device: %q", out)
		}
	})
	t.Run("failure", func(t *testing.T) {
		r := v.request("vol")
		r.Segment.Encryption = "rot13-xts-plain64"
		if err := Attach(t.Context(), r); !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
		nothingMapped(t)
	})
}
