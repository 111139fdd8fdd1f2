package check_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/initramfs/check"
	"luksmith/internal/initramfs/image"
	"luksmith/internal/test/petest"
)

// TestUnifiedKernelImages: what is in the section, and the command line beside it.
func TestUnifiedKernelImages(t *testing.T) {
	t.Parallel()
	files := content(t)
	delete(files, "cryptroot/crypttab")
	delete(files, "scripts/functions")
	files["usr/lib/dracut"], files["usr/sbin/cryptroot-ask.stock"] = "", "#!/bin/sh\n"
	initrd := pack(t, files, "zstd")
	v := volume()
	v.KernelLine = "rd.luks.uuid=" + uuid // of another boot
	for line, missing := range map[string]bool{"quiet rd.luks.uuid=" + uuid: false, "quiet": true} {
		data := petest.Image("257", petest.Kernel("6.12"), initrd, line)
		im, err := image.Read(data)
		if err != nil {
			t.Fatal(err)
		}
		if f := check.Image(im, v); check.OK(f) == missing {
			t.Errorf("%s: %+v", line, f)
		}
		if _, err := image.Read(data[:len(data)/2]); !errors.Is(err, image.ErrCut) {
			t.Errorf("cut: %v", err)
		}
	}
}

// TestKernelLineNamesTheVolume: an image may have no line for it then.
func TestKernelLineNamesTheVolume(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line, tool string
		missing    bool
	}{
		{"quiet rd.luks.uuid=luks-" + uuid, "usr/lib/dracut", false},
		{"rd.luks.name=" + uuid + "=root", "usr/lib/dracut", false},
		{"rd.luks.uuid=" + strings.Replace(uuid, "5", "6", 1), "usr/lib/dracut", true},
		{"rd.luks=no rd.luks.uuid=" + uuid, "usr/lib/dracut", true},
		{"luks.uuid=" + uuid, "scripts/functions", true},
		{"quiet cryptdevice=UUID=" + uuid + ":root:allow-discards root=/dev/mapper/root", "buildconfig", false},
		{"cryptdevice=/dev/sdz9:other", "buildconfig", true},
		{"cryptdevice=UUID=" + uuid, "buildconfig", true},
		{"", "buildconfig", true},
	} {
		files := content(t)
		delete(files, "cryptroot/crypttab")
		delete(files, "scripts/functions")
		files[tt.tool], files["hooks/luksmith"], files["usr/sbin/cryptroot-ask.stock"] = "", "#!/bin/sh\n", "#!/bin/sh\n"
		v := volume()
		v.KernelLine = tt.line
		im, err := image.Read(pack(t, files, "plain"))
		if err != nil {
			t.Fatal(err)
		}
		var missing []string
		for _, f := range check.Image(im, v) {
			if !f.OK {
				missing = append(missing, f.Part)
			}
		}
		if got := slices.Contains(missing, "crypttab"); got != tt.missing || !got && len(missing) > 0 {
			t.Errorf("%s, %q: missing %q", tt.tool, tt.line, missing)
		}
	}
}
