package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/test/testenv"
)

func TestTagOfLink(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]crypttab.DeviceRef{
		"/dev/disk/by-uuid/1234-ABCD":       {Tag: crypttab.TagUUID, Value: "1234-ABCD"},
		`/dev/disk/by-label/my\x20stick`:    {Tag: crypttab.TagLabel, Value: "my stick"},
		"/dev/disk/by-partuuid/deadbeef-01": {Tag: crypttab.TagPartUUID, Value: "deadbeef-01"},
		"/dev/disk/by-partlabel/root":       {Tag: crypttab.TagPartLabel, Value: "root"},
		"/dev/disk/by-id/usb-x":             {Tag: crypttab.TagPath, Value: "/dev/disk/by-id/usb-x"},
		"/dev/sda2":                         {Tag: crypttab.TagPath, Value: "/dev/sda2"},
	} {
		if got := tagOfLink(path); got.Tag != want.Tag || got.Value != want.Value {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

func TestBlockDevicesLeavesOutWhatMustNotBeRead(t *testing.T) {
	t.Parallel()
	class := t.TempDir()
	for name, attributes := range map[string]map[string]string{
		"sda":       {"size": "8", "dev": "8:0"},
		"sr0":       {"size": "0", "dev": "11:0"},
		"fd0":       {"size": "8", "dev": "2:0"},
		"nvme0c0n1": {"size": "8", "dev": "259:1", "hidden": "1"},
		"dm-0":      {"size": "8", "dev": "253:0", "dm/suspended": "1"},
		"dm-1":      {"size": "8", "dev": "253:1", "dm/suspended": "0"},
		"cciss!c0":  {"size": "8", "dev": "104:0"},
		"strange":   {"size": "x", "dev": "1:0"},
	} {
		for a, v := range attributes {
			path := filepath.Join(class, name, a)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(v+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	devices, err := blockDevices(class)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, d := range devices {
		nodes = append(nodes, d.node)
		if d.size != 4096 {
			t.Errorf("%s has %d bytes", d.node, d.size)
		}
	}
	if got, want := strings.Join(nodes, " "), "/dev/cciss/c0 /dev/dm-1 /dev/sda"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// loopDisk makes a disk of a device in package probe's testdata, with its
// partitions, until the end of the test.
func loopDisk(t *testing.T, name string, sector uint32) string {
	t.Helper()
	testenv.NeedGuest(t)
	testenv.Run(t, "modprobe", "loop")
	image, err := os.OpenFile(testenv.Image(t, filepath.Join("..", "internal", "probe", "testdata", name+".zst")), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	return loopOf(t, image, sector)
}

func TestGuestResolveDevice(t *testing.T) {
	testenv.NeedGuest(t)
	ext4, luks2, second := loopDisk(t, "ext4", 0), loopDisk(t, "luks2", 0), loopDisk(t, "gpt512", 0)
	big, mbr := loopDisk(t, "gpt4096", 4096), loopDisk(t, "mbr", 0)
	_ = loopDisk(t, "raid1.0", 0)
	const u = "11111111-2222-4333-8444-5555555555"
	for _, tt := range []struct{ ref, want string }{
		{"UUID=" + u + "55", ext4},
		{"LABEL=key stick", ext4},
		{`LABEL="key stick"`, ext4},
		{`/dev/disk/by-label/key\x20stick`, ext4},
		{"UUID=" + strings.ToUpper(u+"5a"), luks2},
		{"/dev/disk/by-uuid/" + u + "5a", luks2},
		{"LABEL=luks label", luks2},
		{"PARTUUID=deadbeef-05", mbr + "p5"},
		{ext4, ext4},
	} {
		if got, err := resolveDevice(crypttab.ParseDeviceRef(tt.ref)); got != tt.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.ref, got, err, tt.want)
		}
	}
	for _, ref := range []string{"UUID=" + u + "99", "UUID=", "LABEL=", "PARTLABEL=", "PARTUUID=", "/dev/sdz9", "/dev/disk/by-uuid/none", "/dev/disk/by-id/none",
		"UUID=" + u + "58"} { // a member of a RAID
		if got, err := resolveDevice(crypttab.ParseDeviceRef(ref)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v; want %v", ref, got, err, fs.ErrNotExist)
		}
	}
	// Both disks have the same partitions. That is waited for, like a missing one: the
	// device above both may come.
	for _, ref := range []string{"PARTUUID=CCCCCCCC-2222-4333-8444-555555555555", "PARTLABEL=Schlüssel key"} {
		got, err := resolveDevice(crypttab.ParseDeviceRef(ref))
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), second+"p2") || !strings.Contains(err.Error(), big+"p2") {
			t.Errorf("%s: %q, %v; want an error with both", ref, got, err)
		}
	}
}

func TestGuestPartitionOfDiskWithBigSectors(t *testing.T) {
	disk := loopDisk(t, "gpt4096", 4096)
	if got, err := resolveDevice(crypttab.ParseDeviceRef("PARTLABEL=Schlüssel key")); got != disk+"p2" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestGuestDeviceBelowAnotherIsNotMeant is what multipath and RAID1 look like.
func TestGuestDeviceBelowAnotherIsNotMeant(t *testing.T) {
	disk := loopDisk(t, "luks2", 0)
	sectors := strings.TrimSpace(testenv.Run(t, "cat", "/sys/class/block/"+filepath.Base(disk)+"/size"))
	testenv.Run(t, "dmsetup", "create", "upper", "--table", "0 "+sectors+" linear "+disk+" 0")
	defer testenv.Run(t, "dmsetup", "remove", "upper")
	got, err := resolveDevice(crypttab.ParseDeviceRef("LABEL=luks label"))
	if !strings.HasPrefix(got, "/dev/dm-") || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	t.Run("suspended", func(t *testing.T) {
		testenv.Run(t, "dmsetup", "suspend", "upper")
		defer testenv.Run(t, "dmsetup", "resume", "upper")
		start := time.Now()
		_, _ = resolveDevice(crypttab.ParseDeviceRef("LABEL=luks label"))
		if d := time.Since(start); d > probeLimit {
			t.Errorf("reading waited %v for a suspended mapping", d)
		}
	})
}

// TestAnswersCountAlsoAfterTheLimit: a device that hangs must not hide others.
func TestAnswersCountAlsoAfterTheLimit(t *testing.T) {
	t.Parallel()
	limit, stop := context.WithCancel(t.Context())
	stop()
	for range 100 { // select chooses at random
		answer := make(chan bool, 1)
		if answerBefore(limit, answer) {
			t.Fatal("no answer counts as yes")
		}
		answer <- true
		if !answerBefore(limit, answer) {
			t.Fatal("the answer was there and did not count")
		}
	}
}
