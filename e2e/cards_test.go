package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"luksmith/internal/test/pivtest"
	"luksmith/internal/test/testenv"
)

// p11Modules is what p11-kit loads modules by.
const p11Modules = "/usr/share/p11-kit/modules/"

// hsmModule is where Debian's configuration of p11-kit says that SoftHSM is.
const hsmModule = "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"

// cards is a guest with PKCS#11 support, as an initrd would have it, and what its
// tests need on the host.
type cards struct {
	*unit
	store *testenv.SoftHSM
	// Programs in the guest.
	enroll, card string
}

// cryptenroll builds the command with luksmith-pkcs11 beside it.
func cryptenroll(t testing.TB) string {
	t.Helper()
	artefact(t, "luksmith-pkcs11", func(out string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./tokens/pkcs11/luksmith-pkcs11")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if output, err := cmd.CombinedOutput(); err != nil {
			return &commandError{cmd.String(), err, output}
		}
		return nil
	})
	return build(t, "./cryptenroll")
}

// bootCards boots a guest whose initrd holds the helper, p11-kit with its
// configuration, and the modules: SoftHSM with a store, OpenSC, and those for tests.
func bootCards(t *testing.T) *cards {
	t.Helper()
	testenv.Need(t, "gcc", "pcscd", "strace", "softhsm2-util", "systemd-cryptenroll")
	c := &cards{store: testenv.NewSoftHSM(t)}
	c.store.Restore(t, storeFolder)
	folder := t.TempDir()
	c.store.CopyTo(t, folder, "/var/lib/softhsm")
	fault := &testenv.FaultModule{}
	t.Cleanup(fault.Remove)
	vpcd := filepath.Join(folder, "vpcd")
	if err := os.WriteFile(vpcd, []byte(pivtest.ReaderConf()), 0o600); err != nil {
		t.Fatal(err)
	}
	program := cryptenroll(t)
	helper := filepath.Join(filepath.Dir(program), "luksmith-pkcs11")
	const libraries = "/usr/lib/x86_64-linux-gnu/"
	vm := Boot(t, Config{
		Programs: []string{libraries + "libp11-kit.so.0", hsmModule, libraries + "pkcs11/opensc-pkcs11.so", libraries + "libpcsclite.so.1",
			"/usr/sbin/pcscd", pivtest.Driver, "/usr/bin/strace", testenv.Spy(t), "/lib/systemd/systemd-cryptsetup"},
		Files: map[string]string{
			"/usr/lib/luksmith/luksmith-pkcs11": helper,
			p11Modules + "softhsm2.module":      p11Modules + "softhsm2.module",
			"/etc/softhsm/softhsm2.conf":        filepath.Join(folder, "softhsm2.conf"),
			"/var/lib/softhsm/tokens":           filepath.Join(folder, "tokens"),
			"/usr/lib/fault.so":                 fault.Path(t),
			"/etc/reader.conf.d/vpcd":           vpcd,
		},
	})
	c.unit = newUnit(t, vm)
	vm.Shell(t, "ip link set lo up; mkdir -p /run/pcscd")
	c.enroll, c.card = vm.Push(t, program), vm.Push(t, build(t, "./internal/test/pivtest/virtual-card"))
	return c
}

// volume makes a volume with a keyslot for each key of the card, enrolled by our
// command, and returns its node in the guest.
func (c *cards) volume(t *testing.T, compat string, keys ...string) (disk, image string) {
	t.Helper()
	image = copyOf(t, makeSample(t).image)
	for _, key := range keys {
		env := append(c.store.Env, "PASSWORD="+passphrase, "PIN="+cardPIN)
		if err := execute(env, nil, cryptenroll(t), "--pkcs11-token-uri=pkcs11:token=luksmith;object="+key, "--compat="+compat, image); err != nil {
			t.Fatal(err)
		}
	}
	return c.AddDisk(t, Disk{Path: image}), image
}

// faulty is the environment for the module with a fault.
func faulty(fault string) []string { return []string{"FAULT=" + fault, "FAULT_MODULE=" + hsmModule} }

// helpers are the processes that load modules.
func (c *cards) helpers(t *testing.T) string {
	t.Helper()
	return c.Shell(t, "ps | grep luksmith-pkcs11 | grep -v grep || true").Stdout
}
