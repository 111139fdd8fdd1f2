package e2e

import (
	"testing"

	"luksmith/internal/testenv"
)

// TestTPM2InTheGuest runs the tests of tokens/tpm2 that need the kernel's own
// TPM device.
func TestTPM2InTheGuest(t *testing.T) {
	t.Parallel()
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	chip.Stop()
	vm := Boot(t, Config{TPM: chip.StateDir()})
	vm.RunGoTests(t, "./tokens/tpm2", "^TestGuest")
}
