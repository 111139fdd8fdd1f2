package e2e

import (
	"os"
	"sync"
	"testing"
)

// pool has the guests that tests without wishes of their own use one after the
// other.
var pool struct {
	mu   sync.Mutex
	free []*VM
	all  []*VM
}

// Shared returns a guest with the default configuration and the modules for USB
// loaded. The test has it for itself, runs beside others (t.Parallel) and leaves
// the guest as it found it: the next test gets it. There are as many as tests run
// at a time.
func Shared(t *testing.T) *VM {
	t.Helper()
	needGuests(t)
	t.Parallel()
	vm := takeShared()
	if vm == nil {
		vm = boot(t, Config{Modules: []string{"xhci-pci", "usb-storage"}})
		pool.mu.Lock()
		pool.all = append(pool.all, vm)
		pool.mu.Unlock()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the guest's console:\n%s", vm.console())
		}
		pool.mu.Lock()
		pool.free = append(pool.free, vm)
		pool.mu.Unlock()
	})
	return vm
}

// takeShared returns a guest that nobody has, nil if there is none.
func takeShared() *VM {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	last := len(pool.free) - 1
	if last < 0 {
		return nil
	}
	vm := pool.free[last]
	pool.free = pool.free[:last]
	return vm
}

// Main is the TestMain of the package: it ends the shared guests and removes what
// was built.
func Main(m *testing.M) {
	status := m.Run()
	for _, vm := range pool.all {
		vm.stop()
	}
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
	os.Exit(status)
}
