package main

import (
	"fmt"
	"io"

	"luksmith/internal/cli"
	"luksmith/internal/probe"
	"luksmith/luks2"
)

// checkContainer refuses a device that is only a part of the one that holds the
// volume. With the older RAID superblocks, at the end of the device, each member of
// a mirror looks like the volume, and what is written to one of them is not on the
// others when the array runs again.
//
// Unlike systemd, which attaches a member that is named by its path.
func checkContainer(d *luks2.Device, readOnly, ownHeader bool) error {
	device := d.Path()
	f, err := d.OpenData()
	if err != nil {
		return nil // whoever reads the header says why
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	id, err := probe.Superblock(f, size)
	switch {
	case err != nil:
		return nil
	case id.Type == probe.RAID && !readOnly:
		return fmt.Errorf("%w: %s is a member of the RAID %s: assemble that and attach it; if there is none any more, remove what is left of it with wipefs -a -t %s, or attach with the option read-only",
			cli.ErrWrongDevice, device, id.UUID, probe.RAID)
	case id.Type == probe.LVM && ownHeader:
		return fmt.Errorf("%w: %s is a physical volume of LVM: activate its volume group and attach a logical volume", cli.ErrWrongDevice, device)
	}
	return nil
}
