package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// maxGrowth is what an image may gain, compressed, without FIDO2 and PKCS#11.
const maxGrowth = 6_500_000

// testFigures compares an image with that of stock alone, and how long both take to the
// root file system, in the same run. Times are only printed: see README.md.
func (d *distro) testFigures(t *testing.T, tool, image string) {
	once(t)
	switchFile := filepath.Join(d.tree, "etc/luksmith/boot")
	testenv.Run(t, "mv", switchFile, switchFile+".off")
	stock := d.initrd(t, tool)
	testenv.Run(t, "mv", switchFile+".off", switchFile)
	grown := size(t, image) - size(t, stock)
	t.Logf("image: %d bytes, %d more than stock's", size(t, image), grown)
	if grown <= 0 || grown > maxGrowth {
		t.Errorf("the image gains %d bytes, want up to %d", grown, maxGrowth)
	}
	if tool == "dracut-systemd" {
		t.Logf("image: systemd's own TPM2 and FIDO2 are %d more than stock's", size(t, d.systemdInitrd(t))-size(t, stock))
	}
	keyed := func(image string) string {
		return overlay(t, image, func(a *archive) {
			a.file(distroKeyPath[1:], 0o600, []byte(keyFile))
			distroTable(a, 0o600, strings.Replace(distroLine, "none", distroKeyPath, 1))
		})
	}
	for _, boot := range []struct {
		name, image string
		cell        cell
	}{
		{"stock, key file", keyed(stock), cell{}},
		{"luksmith, key file", keyed(image), cell{}},
		{"luksmith, TPM", image, cell{tpm: true, disk: sealedDisk}},
	} {
		m := bootMachine(t, boot.cell.machine(d, tool, boot.image))
		text, _ := m.await(`E2E-BOOTED root=/dev/mapper/root up=[0-9.]+`, 5*time.Minute)
		t.Logf("%s: root after %s s, %.1f s of QEMU's CPU", boot.name, text[strings.LastIndex(text, "=")+1:], m.cpu().Seconds())
		m.stop()
	}
}

// systemdInitrd is an image with what systemd itself needs for TPM2 and FIDO2, as dracut
// puts that together where tpm2-tools are installed.
func (d *distro) systemdInitrd(t *testing.T) string {
	t.Helper()
	d.over = true
	defer func() { d.over = false }()
	d.run(t, "sh", "-c", "apt-get -qq update && apt-get -qq -y --no-install-recommends install tpm2-tools && rm /etc/luksmith/boot && "+
		"exec dracut --force --quiet --kver "+d.release+" --add 'crypt systemd tpm2-tss fido2' /tmp/initrd")
	image := filepath.Join(t.TempDir(), "initrd")
	testenv.Run(t, "mv", filepath.Join(d.tree, "tmp/initrd"), image)
	return image
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
