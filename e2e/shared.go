package e2e

import (
	"os"
	"sync"
	"testing"
)

// shared is the guest that tests without wishes of their own use together.
var shared struct {
	once sync.Once
	vm   *VM
}

// Shared returns a guest with the default configuration and the modules for USB
// loaded. It is booted once per test run, so tests leave it as they find it: they
// detach what they attach and use names of their own.
func Shared(t *testing.T) *VM {
	t.Helper()
	needGuests(t) // each test is skipped by itself
	shared.once.Do(func() { shared.vm = boot(t, Config{Modules: []string{"xhci-pci", "usb-storage"}}) })
	if shared.vm == nil {
		t.Fatal("the shared guest could not be booted, see the first test that wanted it")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the guest's console:\n%s", shared.vm.console())
		}
	})
	return shared.vm
}

// Main is the TestMain of the package: it ends the shared guest and removes what
// was built.
func Main(m *testing.M) {
	status := m.Run()
	if shared.vm != nil {
		shared.vm.stop()
	}
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
	os.Exit(status)
}
