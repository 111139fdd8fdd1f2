package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// TestTPM2ExchangeWithSystemd257 has our command and systemd's enrol the same options
// on one TPM, and each open and extend the volume of the other. Policies that
// systemd-cryptenroll 257 cannot unlock with are in tokens/tpm2.
func TestTPM2ExchangeWithSystemd257(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	tree := testenv.Systemd257(t)
	chip := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	chip.Extend(7, "sha256", make([]byte, 32))
	chip.Extend(7, "sha1", make([]byte, 20))
	theirs := func(t *testing.T, image string, args ...string) {
		t.Helper()
		cmd := tree.Command([]string{"PIN=4711", "NEWPIN=4711"}, "systemd-cryptenroll", append(args, tree.Inside(image))...)
		if r := runCommand(t, cmd); r.status != 0 {
			t.Errorf("systemd-cryptenroll %q: exit status %d\n%s", args, r.status, r.stderr)
		}
	}
	ours := func(t *testing.T, image string, args ...string) {
		t.Helper()
		if r := runCommand(t, alone(t, []string{"PIN=4711", "NEWPIN=4711"}, append(args, image)...)); r.status != 0 {
			t.Errorf("cryptenroll %q: exit status %d\n%s", args, r.status, r.stderr)
		}
	}
	for name, options := range map[string][]string{
		"PCRs": {"--tpm2-pcrs=7+9"}, "PCR by name": {"--tpm2-pcrs=secure-boot-policy"}, "no PCR": {"--tpm2-pcrs="}, "SHA-1": {"--tpm2-pcrs=7:sha1"},
		"SHA-512": {"--tpm2-pcrs=7:sha512"}, "PIN": {"--tpm2-pcrs=7", "--tpm2-with-pin=yes"}, "latch": {"--tpm2-pcrs=7+15:sha256=" + strings.Repeat("0", 64)},
		"value": {"--tpm2-pcrs=11:sha256=" + strings.Repeat("0", 64)},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(tree.Dir(), "v.img")
			if err := os.Rename(luks2test.New(t).Path, image); err != nil {
				t.Fatal(err)
			}
			key := filepath.Join(tree.Dir(), "key")
			if err := os.WriteFile(key, []byte("hunter2"), 0o600); err != nil {
				t.Fatal(err)
			}
			device := "--tpm2-device=" + chip.Device()
			ours(t, image, append(options, "--compat=257", device, "--unlock-key-file="+key)...)
			theirs(t, image, "--unlock-tpm2-device="+chip.Device(), "--recovery-key")
			ours(t, image, "--wipe-slot=tpm2", "--unlock-key-file="+key, "--yes")
			theirs(t, image, append(options, device, "--unlock-key-file="+tree.Inside(key))...)
			ours(t, image, "--unlock-tpm2-device="+chip.Device(), "--recovery-key")
			// Nothing vouches for the conditions of systemd's token, so they are named.
			ours(t, image, append(options, "reseal", device, "--compat=257", "--unlock-key-file="+key)...)
			theirs(t, image, "--unlock-tpm2-device="+chip.Device(), "--recovery-key")
		})
	}
}

// systemdsOwn is the peer. Without a folder the name is that of our test binary, which
// comes first in PATH (TestMain).
const systemdsOwn = "/usr/bin/systemd-cryptenroll"

// TestThePeerIsNotOurselves: benchmarks and tests compared us with us.
func TestThePeerIsNotOurselves(t *testing.T) {
	t.Parallel()
	testenv.Need(t, systemdsOwn)
	if out := testenv.Run(t, systemdsOwn, "--version"); strings.Contains(out, "luksmith") || !strings.HasPrefix(out, "systemd 252") {
		t.Errorf("%s is:\n%s", systemdsOwn, out)
	}
}

// TestTPM2OfSystemd252 opens what Debian 12's systemd enrols, and has its listing
// read what we do to it. It opens no volume without device-mapper.
func TestTPM2OfSystemd252(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm", systemdsOwn)
	chip := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	for name, options := range map[string][]string{"PCRs": {"--tpm2-pcrs=7+9"}, "no PCR": {"--tpm2-pcrs="}, "PIN": {"--tpm2-pcrs=7", "--tpm2-with-pin=yes"}} {
		t.Run(name, func(t *testing.T) {
			v := luks2test.New(t)
			testenv.Run(t, "env", append([]string{"PASSWORD=hunter2", "NEWPIN=4711", systemdsOwn, "--tpm2-device=" + chip.Device(), v.Path}, options...)...)
			chip.Shutdown()
			chip.Reset() // it leaves sessions behind
			// Nothing vouches for the conditions of systemd's token, so they are named.
			reseal := append([]string{"reseal", "--tpm2-device=" + chip.Device(), "--compat=252"}, options...)
			for _, args := range [][]string{{"test", "--unlock-tpm2-device=" + chip.Device()}, reseal, {"test", "--unlock-tpm2-device=" + chip.Device()}} {
				if r := runCommand(t, alone(t, []string{"PIN=4711"}, append(args, v.Path)...)); r.status != 0 {
					t.Errorf("%q: exit status %d\n%s", args, r.status, r.stderr)
				}
			}
			if out := testenv.Run(t, systemdsOwn, v.Path); !strings.Contains(out, "1 tpm2") {
				t.Errorf("systemd lists:\n%s", out)
			}
		})
	}
}
