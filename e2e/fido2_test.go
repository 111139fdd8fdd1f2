package e2e

import (
	"os"
	"os/exec"
	"testing"

	"luksmith/internal/testenv"
)

// buildFIDO2Helper compiles luksmith-fido2, the only kind of program with cgo.
func buildFIDO2Helper(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/include/fido.h"); err != nil {
		testenv.Missing(t, "libfido2-dev", "sh .ci/install-deps installs it")
	}
	testenv.Need(t, "gcc")
	return artefact(t, "luksmith-fido2", func(out string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./tokens/fido2/luksmith-fido2")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if output, err := cmd.CombinedOutput(); err != nil {
			return &commandError{cmd.String(), err, output}
		}
		return nil
	})
}

// fido2Config is a guest in which FIDO2 support is installed, with systemd 252 and
// libfido2's tools for comparison.
func fido2Config(t *testing.T) Config {
	t.Helper()
	const libraries = "/usr/lib/x86_64-linux-gnu/"
	return Config{
		Programs: []string{"/usr/bin/fido2-token", "/lib/systemd/systemd-cryptsetup",
			libraries + "libfido2.so.1", libraries + "cryptsetup/libcryptsetup-token-systemd-fido2.so", libraries + "libgcc_s.so.1"},
		Files:   map[string]string{"/usr/lib/luksmith/luksmith-fido2": buildFIDO2Helper(t)},
		Modules: []string{"uhid", "hid-generic", "loop"},
	}
}

// TestFIDO2 runs the tests of tokens/fido2 that need hidraw devices.
func TestFIDO2(t *testing.T) {
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "fido2-token", "systemctl")
	Boot(t, fido2Config(t)).RunGoTests(t, "./tokens/fido2", "^TestGuest")
}
