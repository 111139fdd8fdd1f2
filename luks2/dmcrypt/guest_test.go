package dmcrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// The tests in this file map devices: they run in the guest of e2e.

// ramDisk returns an empty block device.
func ramDisk(t *testing.T) string {
	t.Helper()
	testenv.NeedGuest(t)
	if _, err := os.Stat("/dev/ram0"); err != nil {
		testenv.Run(t, "modprobe", "brd", "rd_nr=32", "rd_size=40960")
	}
	return fmt.Sprintf("/dev/ram%d", nextDisk.Add(1)-1)
}

var nextDisk atomic.Int32

// volume is one that cryptsetup has formatted, with its key.
type volume struct {
	device, header, keyFile string
	uuid                    string
	key                     secret.Secret
}

// format puts a header of testdata on a device, or beside it if it is the detached
// one. To format in an emulated machine would take a second each time.
func format(t *testing.T, device, name string) *volume {
	t.Helper()
	v := &volume{device: device, keyFile: filepath.Join(t.TempDir(), "key"), key: secret.Copy(bytes.Repeat([]byte("key."), 16))}
	t.Cleanup(v.key.Wipe)
	if name == "luks2-essiv" {
		v.key.Truncate(32)
	}
	if err := os.WriteFile(v.keyFile, v.key.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(testenv.Image(t, filepath.Join("testdata", name+".zst")))
	if err != nil {
		t.Fatal(err)
	}
	// Behind the 32 KiB of testdata are the key areas. cryptsetup wants them there.
	header = append(header, make([]byte, 1<<20-len(header))...)
	on := device
	if name == "luks2-detached" {
		v.header = filepath.Join(t.TempDir(), "header")
		on = v.header
	}
	f, err := os.OpenFile(on, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(header); err != nil {
		t.Fatal(err)
	}
	v.uuid = string(header[168 : 168+36]) // LUKS1 and LUKS2 alike
	return v
}

// open maps a volume as cryptsetup does.
func (v *volume) open(t *testing.T, name string, args ...string) {
	t.Helper()
	if v.header != "" {
		args = append(args, "--header", v.header)
	}
	testenv.Run(t, "cryptsetup", append([]string{"open", "--volume-key-file", v.keyFile, v.device, name}, args...)...)
}

// request is for a volume as format makes it.
func (v *volume) request(name string) *Request {
	return &Request{Name: name, UUID: v.uuid, Device: v.device, Key: v.key, Segment: Segment{Offset: 1 << 20, Encryption: "aes-xts-plain64", SectorSize: 512}}
}

// attach maps and has the mapping taken away at the end.
func attach(t *testing.T, r *Request) {
	t.Helper()
	if err := Attach(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := Detach(context.Background(), r.Name, nil); err != nil && !errors.Is(err, ErrNotActive) {
			t.Error(err)
		}
	})
}

// seen is what the kernel says about the only mapping, without our code: table,
// name, UUID, whether it is read-only, read-ahead.
func seen(t *testing.T) string {
	t.Helper()
	out := testenv.Run(t, "dmsetup", "table", "--showkeys")
	for _, file := range []string{"dm/name", "dm/uuid", "dm/suspended", "ro", "queue/read_ahead_kb"} {
		files, _ := filepath.Glob("/sys/block/dm-*/" + file)
		if len(files) != 1 {
			t.Fatalf("%d mappings", len(files))
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		out += file + ": " + string(b)
	}
	return out
}

// closeOther takes a mapping away that cryptsetup made, faster than it would.
func closeOther(t *testing.T, name string) {
	t.Helper()
	testenv.Run(t, "dmsetup", "remove", name)
	_ = os.Remove(nodePath(name)) // dmsetup leaves that to a udevd
}

// mappings lists all that are there.
func mappings(t *testing.T) string {
	t.Helper()
	out := testenv.Run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name")
	return strings.TrimSpace(strings.ReplaceAll(out, "No devices found", ""))
}

// nothingMapped fails the test if a mapping, node, loop device or key is left.
func nothingMapped(t *testing.T) {
	t.Helper()
	if m := mappings(t); m != "" {
		t.Errorf("left mapped: %s", m)
	}
	nodes, _ := filepath.Glob("/dev/mapper/*")
	if len(nodes) > 1 || len(nodes) == 1 && nodes[0] != controlNode {
		t.Errorf("left nodes: %v", nodes)
	}
	for range 50 { // the kernel dissolves them a moment later
		if loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file"); len(loops) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("left a loop device")
}

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

func mustStatus(t *testing.T, name string) *Info {
	t.Helper()
	i, err := Status(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestGuestStatus(t *testing.T) {
	v := format(t, ramDisk(t), "luks2-4096")
	r := v.request("vol")
	r.Segment.SectorSize, r.Flags, r.ReadOnly = 4096, AllowDiscards, true
	attach(t, r)
	i := mustStatus(t, "vol")
	want := Info{
		Name: "vol", Node: "/dev/mapper/vol", UUID: "CRYPT-LUKS2-" + strings.ReplaceAll(v.uuid, "-", "") + "-vol", Type: "LUKS2", VolumeUUID: v.uuid,
		Source: v.device, Cipher: "aes-xts-plain64", KeySize: 64, KeyName: "cryptsetup:" + v.uuid + "-d0", Offset: 1 << 20, Size: 39 << 20,
		SectorSize: 4096, Flags: AllowDiscards, ReadOnly: true, dev: i.dev, sourceDev: i.sourceDev,
	}
	if *i != want {
		t.Errorf("got  %+v\nwant %+v", *i, want)
	}
	if _, err := Status("nothing"); !errors.Is(err, ErrNotActive) {
		t.Errorf("no mapping: %v", err)
	}
}

func TestGuestDetachTouchesOnlyEncryptedVolumes(t *testing.T) {
	testenv.NeedGuest(t)
	testenv.Run(t, "dmsetup", "create", "linear", "--table", "0 2048 linear "+ramDisk(t)+" 0")
	defer closeOther(t, "linear")
	if _, err := Detach(t.Context(), "linear", nil); !errors.Is(err, ErrNotCrypt) {
		t.Errorf("got %v", err)
	}
	if _, err := Detach(t.Context(), "nothing", nil); !errors.Is(err, ErrNotActive) {
		t.Errorf("got %v", err)
	}
}

func TestGuestDetachTakesIntegrityBelowAway(t *testing.T) {
	disk := ramDisk(t)
	passphrase := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte("open sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--integrity", "hmac-sha256",
		"--integrity-no-wipe", "--key-file", passphrase, disk)
	testenv.Run(t, "cryptsetup", "open", "--key-file", passphrase, disk, "vol")
	if m := mappings(t); !strings.Contains(m, "vol_dif") {
		t.Fatalf("mappings: %s", m)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
	nothingMapped(t)
}

// TestGuestModulesLoadThemselves is a system without udev: no node, nothing loaded.
func TestGuestModulesLoadThemselves(t *testing.T) {
	v := format(t, ramDisk(t), "luks2-512")
	unload := func() {
		testenv.Run(t, "rmmod", "dm-crypt")
		_ = exec.Command("rmmod", "dm-integrity").Run() // cryptsetup asked for its version
		_ = exec.Command("rmmod", "dm-bufio").Run()
		testenv.Run(t, "rmmod", "dm-mod")
		if err := os.RemoveAll("/dev/mapper"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Status("any"); !errors.Is(err, ErrNotActive) {
		t.Fatal(err)
	}
	attach(t, v.request("vol"))
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Fatal(err)
	}
	unload()
	t.Run("all there", func(t *testing.T) { attach(t, v.request("vol")) })
	unload()
	t.Run("asked for by several at once", func(t *testing.T) {
		errs := make(chan error, 8)
		for range cap(errs) {
			go func() { errs <- CheckKernel() }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
	unload()
	loader := "/proc/sys/kernel/modprobe"
	old, err := os.ReadFile(loader)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(loader, old, 0) }()
	if err := os.WriteFile(loader, []byte("/nonexistent"), 0); err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"dm_mod", "dm_crypt"} {
		if err := Attach(t.Context(), v.request("vol")); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), module) {
			t.Errorf("without %s: %v", module, err)
		}
		testenv.Run(t, "modprobe", "dm-mod")
	}
	nothingMapped(t)
}
