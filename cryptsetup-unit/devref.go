package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/probe"
	"luksmith/luks2/dmcrypt"
)

// resolveDevice returns the node of a device that is there now.
//
// Where udevd runs its links count: it knows which of several devices with one
// UUID is meant (multipath, snapshots), and when one is ready. Elsewhere
// superblocks and partition tables of all block devices are read here.
//
// An error that is fs.ErrNotExist says that the device may still come. Two devices
// that fit are such an error, a [severalError]: what is made of both, such as a
// multipath device, may come yet. If it does not nobody chooses: one of them may have
// been put there so that the wrong one is opened.
func resolveDevice(ref crypttab.DeviceRef) (string, error) {
	for _, link := range ref.UdevLinks() {
		if err := reachable(link); !errors.Is(err, fs.ErrNotExist) {
			return link, err
		}
	}
	if ref.Tag == crypttab.TagPath {
		ref = tagOfLink(ref.Value)
	}
	if ref.Tag == crypttab.TagPath || dmcrypt.UdevRuns() {
		return "", fmt.Errorf("%s: %w", ref, fs.ErrNotExist)
	}
	devices, err := blockDevices("/sys/class/block")
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", ref, err)
	}
	return onlyOne(ref, matching(devices, ref))
}

// reachable reports a node that leads to no device, or to a drive without a medium, as one
// that is not there. Other errors are for whoever reads.
func reachable(node string) error {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w", node, fs.ErrNotExist)
	}
	return nil
}

// awaited is something that may appear.
type awaited struct {
	what       string   // "device UUID=…"
	subsystems []string // whose events announce it
	missing    error    // says that it is not there
	limit      time.Duration
}

// tagOfLink turns a path that udev would have made into its meaning, so that
// /dev/disk/by-uuid/… works without udev.
func tagOfLink(path string) crypttab.DeviceRef {
	for _, tag := range []crypttab.Tag{crypttab.TagUUID, crypttab.TagLabel, crypttab.TagPartUUID, crypttab.TagPartLabel} {
		if name, ok := strings.CutPrefix(path, "/dev/disk/by-"+strings.ToLower(string(tag))+"/"); ok {
			return crypttab.ParseDeviceRef(string(tag) + "=" + name)
		}
	}
	return crypttab.DeviceRef{Tag: crypttab.TagPath, Value: path, Literal: path}
}

// onlyOne returns the node of the only device.
func onlyOne(ref crypttab.DeviceRef, list []*blockDevice) (string, error) {
	switch len(list) {
	case 0:
		return "", fmt.Errorf("%s: %w", ref, fs.ErrNotExist)
	case 1:
		return list[0].node, nil
	}
	nodes := make([]string, len(list))
	for i, d := range list {
		nodes[i] = d.node
	}
	return "", &severalError{ref.String(), nodes}
}

// severalError says that several devices fit. It is fs.ErrNotExist: the one that is
// meant is not there.
type severalError struct {
	what  string // "UUID=…"
	nodes []string
}

func (e *severalError) Error() string {
	return fmt.Sprintf("%s is on more than one device: %s; name the right one by its path, or take the others away", e.what, strings.Join(e.nodes, ", "))
}

// Is makes errors.Is(err, fs.ErrNotExist) true.
func (*severalError) Is(target error) bool { return target == fs.ErrNotExist }

// probeLimit is how long a device may take to answer; a broken one must not hold
// up the others.
const probeLimit = 5 * time.Second

// matching asks all devices at once and returns those that fit.
func matching(devices []*blockDevice, ref crypttab.DeviceRef) []*blockDevice {
	answers := make([]chan bool, len(devices))
	for i, d := range devices {
		answers[i] = make(chan bool, 1)
		go func() { answers[i] <- d.matches(ref) }()
	}
	limit, stop := context.WithTimeout(context.Background(), probeLimit)
	defer stop()
	var found []*blockDevice
	for i, d := range devices {
		if answerBefore(limit, answers[i]) {
			found = append(found, d)
		}
	}
	// A device of which another one is made has the same content: a path of a
	// multipath device, the disk below a linear mapping.
	return slices.DeleteFunc(found, func(d *blockDevice) bool {
		return slices.ContainsFunc(found, func(upper *blockDevice) bool { return slices.Contains(d.holders, upper.name) })
	})
}

// answerBefore returns an answer, false if there is none when the limit has passed.
// One that is there counts even then: whoever puts a device there that never answers
// must not hide that two others have the same UUID.
func answerBefore(limit context.Context, answer <-chan bool) bool {
	select {
	case yes := <-answer:
		return yes
	case <-limit.Done():
	}
	select {
	case yes := <-answer:
		return yes
	default:
		return false
	}
}

// blockDevice is a disk, a partition, a mapping.
type blockDevice struct {
	name    string // as in /sys/class/block
	folder  string // in sysfs, without links
	node    string // below /dev
	size    int64  // bytes
	holders []string
}

// blockDevices lists the block devices that can be read without waiting for
// somebody: no empty drives, no suspended mappings, no floppies.
func blockDevices(class string) ([]*blockDevice, error) {
	names, err := namesIn(class)
	if err != nil {
		return nil, err
	}
	var list []*blockDevice
	for _, name := range names {
		if d := newBlockDevice(class, name); d != nil {
			list = append(list, d)
		}
	}
	return list, nil
}

// newBlockDevice is nil for a device that is not read.
func newBlockDevice(class, name string) *blockDevice {
	folder, err := filepath.EvalSymlinks(filepath.Join(class, name))
	if err != nil {
		return nil // gone meanwhile
	}
	d := &blockDevice{name: name, folder: folder, size: 512 * number(attribute(folder, "size"))}
	const floppyMajor = "2:" // opening one makes the drive search for seconds
	if d.size == 0 || attribute(folder, "hidden") == "1" || attribute(folder, "dm/suspended") == "1" || strings.HasPrefix(attribute(folder, "dev"), floppyMajor) {
		return nil
	}
	d.node = "/dev/" + strings.ReplaceAll(name, "!", "/")
	d.holders, _ = namesIn(filepath.Join(folder, "holders"))
	return d
}

// namesIn are the names in a folder, sorted. os.ReadDir would bring 12 kB of sorting.
func namesIn(folder string) ([]string, error) {
	d, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// attribute is the value of a file in sysfs, "" without one.
func attribute(folder, name string) string {
	b, _ := os.ReadFile(filepath.Join(folder, name))
	return strings.TrimSpace(string(b))
}

// number is a decimal number of sysfs, 0 for anything else. 54 bits leave room to
// turn sectors into bytes.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 54)
	if err != nil {
		return 0
	}
	return n
}

// matches reads what the reference is about. A device that cannot be read does not
// match.
func (d *blockDevice) matches(ref crypttab.DeviceRef) bool {
	same := func(have string) bool { return have != "" && (have == ref.Value || have == ref.Literal) }
	switch ref.Tag {
	case crypttab.TagUUID, crypttab.TagLabel:
		id := d.superblock()
		if id == nil || id.Type == probe.RAID || id.Type == probe.LVM {
			return false
		}
		if ref.Tag == crypttab.TagLabel {
			return same(id.Label)
		}
		return id.UUID != "" && strings.EqualFold(id.UUID, ref.Value)
	case crypttab.TagPartUUID, crypttab.TagPartLabel:
		p := d.partition()
		if p == nil {
			return false
		}
		if ref.Tag == crypttab.TagPartLabel {
			return same(p.Label)
		}
		return strings.EqualFold(p.UUID, ref.Value)
	}
	return false
}

// superblock is nil if there is none that is known.
func (d *blockDevice) superblock() *probe.Identity {
	f := openBlock(d.node)
	if f == nil {
		return nil
	}
	defer f.Close()
	id, err := probe.Superblock(f, d.size)
	if err != nil {
		return nil
	}
	return id
}

// partition reads the device's entry in the partition table of its disk, nil if it
// is not a partition.
func (d *blockDevice) partition() *probe.Partition {
	n := number(attribute(d.folder, "partition"))
	if n == 0 {
		return nil
	}
	disk := filepath.Dir(d.folder)
	f := openBlock("/dev/" + strings.ReplaceAll(filepath.Base(disk), "!", "/"))
	if f == nil {
		return nil
	}
	defer f.Close()
	size, sector := 512*number(attribute(disk, "size")), number(attribute(disk, "queue/logical_block_size"))
	p, err := probe.FindPartition(f, size, int(sector), int(n), 512*number(attribute(d.folder, "start")))
	if err != nil {
		return nil
	}
	return p
}

// openBlock opens a block device for reading, nil if that fails or it is something
// else. O_NONBLOCK: a drive without a medium answers at once.
func openBlock(node string) *os.File {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || st.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		_ = f.Close()
		return nil
	}
	return f
}
