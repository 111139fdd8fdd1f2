package testenv

import (
	"os"
	"os/exec"
	"testing"

	"luksmith/luks2/secret"
)

// AsShipped reports whether this test binary erases the heap behind secrets, as the
// programs do that `make build` makes. In one that does not, it runs the test of the
// same name in one that does, as a command of its own, fails with it, and returns
// false: there is nothing left to do. A toolchain without runtime/secret ships plain
// builds; then the test is not applicable.
func AsShipped(t testing.TB) bool {
	t.Helper()
	if secret.ErasesHeap {
		return true
	}
	cmd := exec.Command("go", "test", "-trimpath", "-count=1", "-run", "^"+t.Name()+"$", ".")
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=runtimesecret", "CGO_ENABLED=0")
	if err := exec.Command("env", "GOEXPERIMENT=runtimesecret", "go", "version").Run(); err != nil {
		t.Skip("not applicable here: this Go has no runtime/secret")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in the build that is shipped: %v\n%s", err, out)
	}
	return false
}
