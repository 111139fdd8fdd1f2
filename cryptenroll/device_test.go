package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// fakeTree builds a sysfs: LUKS2 on sda3 with LVM above it (dm-0 crypt, dm-1 LV), a
// plain sda1, and a striped LV dm-2 on two disks.
func fakeTree(t *testing.T, mountinfo string) blockTree {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	numbers := map[string]string{"sda1": "8:1", "sda3": "8:3", "sdb": "8:16", "dm-0": "254:0", "dm-1": "254:1", "dm-2": "254:2"}
	for name, number := range numbers {
		write("sys/class/block/"+name+"/dev", number+"\n")
		write("sys/class/block/"+name+"/slaves/.keep", "")
		_ = os.Remove(filepath.Join(dir, "sys/class/block", name, "slaves/.keep"))
		if err := os.MkdirAll(filepath.Join(dir, "sys/dev/block"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../class/block/"+name, filepath.Join(dir, "sys/dev/block", number)); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-45bb0961a37445338da00810298a8eb4-cr\n")
	write("sys/class/block/dm-0/dm/name", "cr\n")
	write("sys/class/block/dm-0/slaves/sda3", "")
	write("sys/class/block/sda3/holders/dm-0", "")
	write("sys/class/block/dm-1/dm/uuid", "LVM-abc\n")
	write("sys/class/block/dm-1/slaves/dm-0", "")
	write("sys/class/block/dm-2/dm/uuid", "LVM-def\n")
	write("sys/class/block/dm-2/slaves/sda3", "")
	write("sys/class/block/dm-2/slaves/sdb", "")
	write("mountinfo", mountinfo)
	return blockTree{sys: filepath.Join(dir, "sys"), dev: "/dev", mountinfo: filepath.Join(dir, "mountinfo")}
}

func TestDefaultDevice(t *testing.T) {
	const boot = "31 1 8:1 / /boot rw - ext4 /dev/sda1 rw\n"
	for name, tc := range map[string]struct{ mounts, want string }{
		"root on LVM on LUKS":      {"30 1 254:1 / / rw shared:1 - ext4 /dev/mapper/vg-root rw\n" + boot, "/dev/sda3"},
		"separate var, plain root": {"30 1 8:1 / / rw - ext4 /dev/sda1 rw\n32 30 254:0 / /var rw - xfs /dev/mapper/cr rw\n", "/dev/sda3"},
		"var plain, root on LUKS":  {"30 1 254:0 / / rw - ext4 x rw\n32 30 8:1 / /var rw - xfs x rw\n", "/dev/sda3"},
		"btrfs, anonymous number":  {"30 1 0:25 /@ / rw - btrfs /dev/dm-0 rw\n", "/dev/sda3"},
		"nothing encrypted":        {"30 1 8:1 / / rw - ext4 /dev/sda1 rw\n", ""},
		"striped":                  {"30 1 254:2 / / rw - ext4 x rw\n", ""},
		"no mounts":                {"", ""},
		"garbage":                  {"30 1 254:0\n - \n\x00\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fakeTree(t, tc.mounts).defaultDevice()
			if got != tc.want || (tc.want == "") != errors.Is(err, errNoDefaultDevice) {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestMappingsOf(t *testing.T) {
	tree := fakeTree(t, "")
	if got := tree.mappingsOf("/dev/sda3"); !slices.Equal(got, []string{"cr"}) {
		t.Errorf("sda3: %q", got)
	}
	if got := tree.mappingsOf("/dev/sda1"); got != nil {
		t.Errorf("sda1: %q", got)
	}
	if got := tree.mappingsOf(filepath.Join(t.TempDir(), "image")); got != nil {
		t.Errorf("image file: %q", got)
	}
}

func TestMountinfoEscapes(t *testing.T) {
	m, ok := parseMount(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/ro\134ot rw`)
	if !ok || m != (mount{number: "98:0", point: "/mnt 2", source: `/dev/ro\ot`}) {
		t.Errorf("got %+v, %t", m, ok)
	}
}
