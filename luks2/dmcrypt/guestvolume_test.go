package dmcrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

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
