package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Device is a piece of hardware that was plugged in while the guest ran.
type Device struct {
	vm      *VM
	id      string
	scsiID  int
	removed bool
}

// AddDisk plugs a disk in and returns its node in the guest, such as /dev/sdb,
// once that is there. It is pulled out at the end of the test.
func (vm *VM) AddDisk(t testing.TB, d Disk) string {
	t.Helper()
	return vm.PlugDisk(t, d).Node(t)
}

// PlugDisk plugs a disk in and does not wait for the guest to see it.
func (vm *VM) PlugDisk(t testing.TB, d Disk) *Device {
	t.Helper()
	dev := vm.newDevice(t, d)
	args := map[string]any{"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": dev.scsiID, "lun": 0}
	if d.SectorSize != 0 {
		args["logical_block_size"], args["physical_block_size"] = d.SectorSize, d.SectorSize
	}
	dev.add(t, args)
	return dev
}

// PlugUSBStick plugs a USB memory stick in. The guest's module usb-storage and
// xhci-pci have to be loaded (Config.Modules or modprobe).
func (vm *VM) PlugUSBStick(t testing.TB, d Disk) *Device {
	t.Helper()
	dev := vm.newDevice(t, d)
	dev.scsiID = -1
	dev.add(t, map[string]any{"driver": "usb-storage", "bus": "usb.0"})
	return dev
}

// newDevice opens the image in QEMU.
func (vm *VM) newDevice(t testing.TB, d Disk) *Device {
	t.Helper()
	vm.mu.Lock()
	vm.lastDisk++
	n := vm.lastDisk
	vm.mu.Unlock()
	if n > 255 {
		t.Fatal("a guest takes 255 disks over its life")
	}
	dev := &Device{vm: vm, id: fmt.Sprintf("plug%d", n), scsiID: n}
	path, err := filepath.Abs(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	err = vm.monitor.command("blockdev-add", map[string]any{
		"driver": "raw", "node-name": dev.id + "-image", "read-only": d.ReadOnly,
		"file": map[string]any{"driver": "file", "filename": path, "read-only": d.ReadOnly},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// add plugs the device in and has it pulled out at the end of the test.
func (dev *Device) add(t testing.TB, args map[string]any) {
	t.Helper()
	args["id"], args["drive"] = dev.id, dev.id+"-image"
	if err := dev.vm.monitor.command("device_add", args); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !dev.removed {
			dev.Remove(t)
		}
	})
}

// Remove pulls the device out, whatever the guest does with it.
func (dev *Device) Remove(t testing.TB) {
	t.Helper()
	dev.removed = true
	if err := dev.vm.monitor.command("device_del", map[string]any{"id": dev.id}); err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case e := <-dev.vm.monitor.events:
			if e.Data.Device != dev.id {
				continue
			}
			if err := dev.vm.monitor.command("blockdev-del", map[string]any{"node-name": dev.id + "-image"}); err != nil {
				t.Error(err)
			}
			return
		case <-time.After(20 * time.Second):
			t.Errorf("the guest does not let go of %s", dev.id)
			return
		}
	}
}

// Node waits for the disk in the guest and returns its path there.
func (dev *Device) Node(t testing.TB) string {
	t.Helper()
	where := fmt.Sprintf("/sys/bus/scsi/devices/*:0:%d:0/block/*", dev.scsiID)
	if dev.scsiID < 0 {
		where = "/sys/bus/usb/devices/*/*/host*/target*/*/block/*"
	}
	script := `i=0; while :; do set -- ` + where + `; [ -e "$1" ] && n=/dev/${1##*/} && [ -b $n ] && [ "$(cat $1/size)" != 0 ] && echo $n && exit
		i=$((i+1)); [ $i -lt 400 ] || exit 1; sleep 0.05; done`
	return strings.TrimSpace(dev.vm.Shell(t, script).Stdout)
}
