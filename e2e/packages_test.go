package e2e

import "testing"

// TestPackagesInTheGuest runs those tests of other packages that need a kernel of
// their own: devices that come and go, mappings, mounts.
func TestPackagesInTheGuest(t *testing.T) {
	vm := Shared(t)
	t.Run("luks2", func(t *testing.T) { vm.RunGoTests(t, "./luks2", "^TestGuest") })
	t.Run("dmcrypt", func(t *testing.T) { vm.RunGoTests(t, "./luks2/dmcrypt", "^TestGuest") })
	t.Run("cryptsetup-unit", func(t *testing.T) { vm.RunGoTests(t, "./cryptsetup-unit", "^TestGuest", "./internal/probe") })
}
