package e2e

import "testing"

// TestPackagesInTheGuest runs those tests of other packages that need a kernel of
// their own.
func TestPackagesInTheGuest(t *testing.T) {
	vm := Shared(t)
	for _, pkg := range []string{"./luks2/dmcrypt"} {
		t.Run(pkg, func(t *testing.T) { vm.RunGoTests(t, pkg, "^TestGuest") })
	}
}
