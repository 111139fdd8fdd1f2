package check

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"luksmith/internal/gpt"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/tokens/all"
)

// ReadVolume reads from a volume's header what it calls for.
func ReadVolume(ctx context.Context, device string) (*Volume, error) {
	d, err := luks2.Open(device, &luks2.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	h, err := d.Header(ctx)
	if err != nil {
		return nil, err
	}
	mapping, err := dmcrypt.FromHeader(h)
	if err != nil {
		return nil, err
	}
	v := NewVolume()
	v.Names = []string{"UUID=" + h.UUID, "/dev/disk/by-uuid/" + h.UUID, device}
	v.Root = marksRoot("/sys/class/block", "/dev", device)
	_, err = os.Stat("/sys/firmware/efi")
	v.EFI = err == nil
	v.Needs.AddCipher(mapping.Segment.Encryption)
	for _, handler := range all.New() {
		for _, t := range h.Heeded() {
			if t.Type == handler.Type() {
				v.Needs.AddType(handler)
			}
		}
	}
	if driver := tpmDriver("/sys"); slices.Contains(v.Needs.Folders, tpmFolder) && driver != "" {
		v.Needs.Modules = append(v.Needs.Modules, driver)
	}
	return v, nil
}

// NewVolume is a volume of which only the machine is known.
func NewVolume() *Volume {
	line, _ := os.ReadFile("/proc/cmdline")
	return &Volume{KernelLine: string(line), Modules: "/lib/modules"}
}

// tpmFolder is where the kernel has its drivers for TPMs.
const tpmFolder = "drivers/char/tpm"

// tpmDriver is the module for the TPM of this machine, empty where there is no TPM or the
// driver is built in. sys is where sysfs lies.
func tpmDriver(sys string) string {
	chips, _ := filepath.Glob(filepath.Join(sys, "class/tpm/tpm[0-9]*/device/driver/module"))
	if len(chips) == 0 {
		return ""
	}
	module, err := filepath.EvalSymlinks(chips[0])
	if err != nil {
		return ""
	}
	return filepath.Base(module)
}

// marksRoot reports whether the partition table of its disk marks a device as root. class
// and dev are folders of the kernel.
func marksRoot(class, dev, device string) bool {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return false
	}
	folder, err := filepath.EvalSymlinks(filepath.Join(class, filepath.Base(real)))
	number, nerr := readNumber(filepath.Join(folder, "partition"))
	sectors, serr := readNumber(filepath.Join(folder, "../size"))
	size, lerr := readNumber(filepath.Join(folder, "../queue/logical_block_size"))
	disk, oerr := os.Open(filepath.Join(dev, filepath.Base(filepath.Dir(folder))))
	if oerr == nil {
		defer disk.Close()
	}
	if errors.Join(err, nerr, serr, lerr, oerr) != nil {
		return false
	}
	table, err := gpt.Read(disk, 512*sectors, size)
	if err != nil {
		return false
	}
	newest := gpt.Newest(table.Partitions, gpt.Root, gpt.Native)
	return len(newest) > 0 && int64(newest[0].Number) == number
}

func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}
