package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/gpt"
	"luksmith/internal/probe"
)

// Types of partitions that boot loaders are started from.
const (
	espType      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	xbootldrType = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
)

// discoveredIn begins what stands for the file of a discovered volume's line.
const discoveredIn = "partition table of "

// discovery says which partitions are looked for, on which disk (Discoverable
// Partitions Specification; systemd 257 src/gpt-auto-generator, src/udev's
// udev-builtin-blkid.c).
type discovery struct {
	roles []gpt.Role
	// loader is the PARTUUID that the boot loader was started from, "" where no boot
	// loader says so.
	loader    string
	machineID string // 32 hexadecimal digits, "" if unknown
	// measured says that systemd-stub has measured the kernel: then the keys of root
	// and var are measured too, as systemd does.
	measured bool
}

// discoverable are the roles that a volume is attached for. /var/tmp can wait for the
// real root.
var discoverable = [...]gpt.Role{gpt.Root, gpt.Usr, gpt.Home, gpt.Srv, gpt.Var, gpt.Swap}

// newDiscovery reads what the machine says.
func (a *app) newDiscovery(initrd bool) (*discovery, error) {
	text, err := a.kernelText()
	if err != nil {
		return nil, err
	}
	d := &discovery{roles: discoveredRoles(text, initrd)}
	if len(d.roles) == 0 || !crypttab.ParseKernelLine(text, initrd).Enabled {
		return &discovery{}, nil
	}
	id, _ := os.ReadFile(filepath.Join(a.root, "/etc/machine-id"))
	d.machineID = strings.TrimSpace(string(id[:min(len(id), 64)]))
	d.loader = strings.ToLower(a.efiVariable("LoaderDevicePartUUID"))
	d.measured = a.efiVariable("StubPcrKernelImage") != ""
	return d, nil
}

// discoveredRoles are those that the kernel command line leaves to discovery. A root=
// that names what would be attached leaves it so: somebody has to mount it.
func discoveredRoles(text string, initrd bool) (roles []gpt.Role) {
	enabled, off, hashed := true, map[gpt.Role]bool{}, map[gpt.Role]bool{}
	for word := range strings.FieldsSeq(text) {
		name, value, has := strings.Cut(word, "=")
		switch name {
		case "systemd.gpt_auto":
			kernelSwitch(&enabled, value, has)
		case "rd.systemd.gpt_auto":
			if initrd {
				kernelSwitch(&enabled, value, has)
			}
		case "systemd.swap":
			on := !off[gpt.Swap]
			kernelSwitch(&on, value, has)
			off[gpt.Swap] = !on
		case "root":
			off[gpt.Root] = value != "" && !leftToDiscovery(value, gpt.Root)
		case "mount.usr":
			off[gpt.Usr] = value != "" && !leftToDiscovery(value, gpt.Usr)
		case "roothash", "usrhash": // dm-verity
			hashed[gpt.Role(strings.TrimSuffix(name, "hash"))] = value != ""
		}
	}
	for _, r := range discoverable {
		if enabled && !off[r] && !hashed[r] {
			roles = append(roles, r)
		}
	}
	return roles
}

func leftToDiscovery(value string, r gpt.Role) bool {
	return slices.Contains([]string{"gpt-auto", "gpt-auto-force", "dissect", "dissect-force", "/dev/mapper/" + string(r)}, value)
}

// kernelSwitch sets a boolean of the kernel command line. What is none is ignored, as in
// systemd.
func kernelSwitch(to *bool, value string, has bool) {
	if on, err := crypttab.ParseBool(value); !has || err == nil {
		*to = !has || on
	}
}

// needed reports whether the boot waits for a role.
func needed(r gpt.Role) bool { return r.Versioned() }

// discover returns the volumes of the disk that this machine was booted from, but for
// those that entries name. It waits for the disk if root or usr may be on it.
func (a *app) discover(initrd bool, entries []crypttab.Entry, limit time.Duration) (found []crypttab.Entry, err error) {
	d, err := a.newDiscovery(initrd)
	if err != nil || len(d.roles) == 0 {
		return nil, err
	}
	look := func() (err error) {
		found, err = d.look(filepath.Join(a.root, "/sys/class/block"), entries)
		return err
	}
	if !slices.ContainsFunc(d.roles, needed) {
		if err := look(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return found, nil
	}
	disk := awaited{what: "the disk that this machine was booted from", subsystems: []string{"block"}, missing: fs.ErrNotExist, limit: limit}
	err = a.newDevices().until(a.ctx, disk, look)
	return found, err
}

// look is discover for what is there now. An error that is fs.ErrNotExist says that
// something may still come.
func (d *discovery) look(class string, entries []crypttab.Entry) ([]crypttab.Entry, error) {
	devices, err := blockDevices(class)
	if err != nil {
		return nil, err
	}
	disk, err := d.bootDisk(disksOf(devices))
	if err != nil {
		return nil, err
	}
	var found []crypttab.Entry
	for _, role := range d.roles {
		p := d.partitionFor(role, disk.table)
		if p == nil {
			continue
		}
		device := disk.partition(devices, p)
		if device == nil {
			return nil, fmt.Errorf("partition %d of %s: %w", p.Number, disk.device.node, fs.ErrNotExist)
		}
		id := device.superblock()
		if id == nil || id.Type != probe.LUKS || named(entries, role, device) {
			continue
		}
		found = append(found, d.entry(role, p, disk, device))
	}
	return found, nil
}

// entry is the volume as a line of crypttab would have it.
func (d *discovery) entry(role gpt.Role, p *gpt.Partition, disk *tabledDisk, device *blockDevice) crypttab.Entry {
	var options []string
	if !needed(role) {
		options = append(options, "nofail")
	}
	if p.Flags&gpt.ReadOnly != 0 && role != gpt.Swap {
		options = append(options, "read-only")
	}
	if d.measured && (role == gpt.Root || role == gpt.Var) {
		options = append(options, "tpm2-measure-pcr=yes")
	}
	return crypttab.Entry{File: discoveredIn + disk.device.node, Name: string(role),
		Source: crypttab.LiteralDeviceRef(device.node), Options: strings.Join(options, ",")}
}

// named reports whether crypttab or the kernel command line has a line about a role or
// its device.
func named(entries []crypttab.Entry, role gpt.Role, device *blockDevice) bool {
	return slices.ContainsFunc(entries, func(e crypttab.Entry) bool {
		ref := e.Source
		if ref.Tag == crypttab.TagPath {
			ref = tagOfLink(ref.Value)
		}
		return e.Name == string(role) || device.matches(ref) || ref.Tag == crypttab.TagPath && sameFile(ref.Value, device.node)
	})
}

// partitionFor is the partition of a role: the newest version of root and usr, the first
// of the others; var only if it belongs to this installation. nil without one.
func (d *discovery) partitionFor(role gpt.Role, t *gpt.Table) *gpt.Partition {
	list := gpt.Newest(t.Partitions, role, gpt.Native)
	if role == gpt.Var {
		list = slices.DeleteFunc(list, func(p gpt.Partition) bool { return !d.ownVar(&p) })
	}
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// ownVar reports whether the UUID of a partition for /var is the HMAC of its type, keyed
// by the machine ID: as the specification has it, and with the marks of a random UUID,
// as systemd makes it (sd_id128_get_machine_app_specific).
func (d *discovery) ownVar(p *gpt.Partition) bool {
	key, err := hex.DecodeString(d.machineID)
	typ, terr := hex.DecodeString(strings.ReplaceAll(p.Type, "-", ""))
	if err != nil || terr != nil || len(key) != 16 {
		return false
	}
	h := hmac.New(sha256.New, key)
	h.Write(typ)
	sum := h.Sum(nil)[:16]
	have := strings.ReplaceAll(p.UUID, "-", "")
	plain := hex.EncodeToString(sum)
	sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80
	return have == plain || have == hex.EncodeToString(sum)
}

// tabledDisk is a disk with its partition table.
type tabledDisk struct {
	device *blockDevice
	table  *gpt.Table
}

// disksOf reads the partition tables of all disks. A disk of which another one is made,
// such as a path of a multipath device, is not one.
func disksOf(devices []*blockDevice) (list []*tabledDisk) {
	var answers []chan *tabledDisk
	for _, d := range devices {
		if len(d.holders) > 0 || attribute(d.folder, "partition") != "" {
			continue
		}
		answer := make(chan *tabledDisk, 1)
		answers = append(answers, answer)
		go func() { answer <- readTable(d) }()
	}
	limit, stop := context.WithTimeout(context.Background(), probeLimit)
	defer stop()
	for _, answer := range answers {
		select {
		case disk := <-answer:
			if disk != nil {
				list = append(list, disk)
			}
		case <-limit.Done(): // a broken disk holds nobody up
		}
	}
	return list
}

// readTable is nil for a disk without a table that is right.
func readTable(d *blockDevice) *tabledDisk {
	f := openBlock(d.node)
	if f == nil {
		return nil
	}
	defer f.Close()
	t, err := gpt.Read(f, d.size, number(attribute(d.folder, "queue/logical_block_size")))
	if err != nil || t.Check(d.size) != nil {
		return nil
	}
	return &tabledDisk{d, t}
}

// bootDisk is the disk with the partition that the boot loader came from or, where that
// is not known, the only one with a partition for root or usr. Nobody chooses between
// two: one of them may have been put there.
func (d *discovery) bootDisk(disks []*tabledDisk) (*tabledDisk, error) {
	what := "a partition for root or usr"
	if d.loader != "" {
		what = "the partition of the boot loader, PARTUUID=" + d.loader + ","
	}
	disks = slices.DeleteFunc(disks, func(disk *tabledDisk) bool { return !d.bootedFrom(disk.table) })
	if len(disks) == 1 {
		return disks[0], nil
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	}
	e := &severalError{what: what}
	for _, disk := range disks {
		e.nodes = append(e.nodes, disk.device.node)
	}
	return nil, e
}

func (d *discovery) bootedFrom(t *gpt.Table) bool {
	if d.loader == "" {
		return len(gpt.Newest(t.Partitions, gpt.Root, gpt.Native))+len(gpt.Newest(t.Partitions, gpt.Usr, gpt.Native)) > 0
	}
	return slices.ContainsFunc(t.Partitions, func(p gpt.Partition) bool {
		return p.UUID == d.loader && (p.Type == espType || p.Type == xbootldrType)
	})
}

// partition is the device that the kernel made of a partition, nil if it has none, or
// another one than the table says.
func (disk *tabledDisk) partition(devices []*blockDevice, p *gpt.Partition) *blockDevice {
	for _, d := range devices {
		if filepath.Dir(d.folder) == disk.device.folder && number(attribute(d.folder, "partition")) == int64(p.Number) &&
			512*number(attribute(d.folder, "start")) == p.Start() && d.size == p.Size() {
			return d
		}
	}
	return nil
}
