package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// SeaBIOSPCR7 is what PCR 7 (SHA-256) holds in every guest with a TPM: QEMU's
// firmware measures nothing but a separator into it. A volume can be enrolled on
// the host against this value and unlocked in the guest.
const SeaBIOSPCR7 = "e21b703ee69c77476bccb43ec0336a9a1b2914b378944f7b00a10214ca8fea93"

// startTPM serves a TPM to QEMU. It ends with QEMU's connection.
func (vm *VM) startTPM(t testing.TB, state string) error {
	t.Helper()
	testenv.Need(t, "swtpm")
	socket := filepath.Join(vm.dir, "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket,
		"--log", "file="+filepath.Join(state, "guest.log")+",level=20,truncate")
	exited, err := startWithUs(cmd)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	for range 1000 {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("swtpm does not listen on %s", socket)
}
