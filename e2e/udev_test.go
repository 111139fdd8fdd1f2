package e2e

import (
	"path/filepath"
	"syscall"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestPackagesWithUdevd runs tests in a guest that has systemd's udevd and the
// rules of device-mapper.
func TestPackagesWithUdevd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	tree := testenv.Systemd257(t)
	vm := Boot(t, Config{
		Root:     tree.Root,
		Programs: []string{"/usr/bin/udevadm", "/usr/sbin/dmsetup"},
		Files:    map[string]string{"/usr/lib/udev/rules.d": filepath.Join(tree.Root, "usr/lib/udev/rules.d")},
	})
	vm.Shell(t, "mkdir -p /usr/lib/systemd && ln -s /usr/bin/udevadm /usr/lib/systemd/systemd-udevd")
	t.Run("dmcrypt", func(t *testing.T) { vm.RunGoTests(t, "./luks2/dmcrypt", "^TestUdev") })
	t.Run("cryptsetup-unit", func(t *testing.T) {
		udevd := vm.Start(t, Command{Args: []string{"/usr/lib/systemd/systemd-udevd"}})
		vm.Shell(t, "i=0; while ! [ -S /run/udev/control ]; do i=$((i+1)); [ $i -lt 200 ]; sleep 0.05; done; udevadm settle")
		vm.RunGoTests(t, "./cryptsetup-unit", "^TestGuestUevents$")
		udevd.Signal(t, syscall.SIGTERM)
		udevd.Wait(t)
	})
}
