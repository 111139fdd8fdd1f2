package main

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"luksmith/tokens/tpm2/bootrecord"
	"luksmith/tokens/tpm2/chip"
)

// presentPCR reads a value from a TPM.
func presentPCR(t *testing.T, device string, pcr int) []byte {
	t.Helper()
	c, err := chip.Open(t.Context(), device, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	values, err := c.ReadPCRs(chip.BankSHA256, chip.PCRSetOf(pcr))
	if err != nil {
		t.Fatal(err)
	}
	return values[pcr]
}

// TestPresentValueOfPCR11IsNotSealed: the phases of the boot have moved it since the
// initrd, so a key for the present value never opened (systemd#35202).
func TestPresentValueOfPCR11IsNotSealed(t *testing.T) {
	t.Parallel()
	m := newBootMachine(t)
	volume := m.volume()
	m.install("debian", "initrd")
	say := func(words ...string) {
		for _, w := range words {
			sum := sha256.Sum256([]byte(w))
			m.chip.Extend(11, "sha256", sum[:])
		}
	}
	enroll := func() result {
		return runCommand(t, m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=4+11", volume))
	}
	m.start("debian")
	say("enter-initrd")
	seen := presentPCR(t, m.chip.Device(), 11)
	say("leave-initrd", "sysinit", "ready")
	if r := enroll(); r.status != 1 || !strings.Contains(r.stderr, "PCR 11 is extended while the system starts") {
		t.Fatalf("nobody knows the value: %d\n%s", r.status, r.stderr)
	}
	record := &bootrecord.Boot{ID: "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a01", Time: time.Unix(1, 0),
		Unlocks: []bootrecord.Unlock{{Time: time.Unix(1, 0), Volume: "another", Bank: "sha256", PCRs: bootrecord.PCRs{11: seen}}}}
	if err := bootrecord.State(m.root).Write(record); err != nil {
		t.Fatal(err)
	}
	if r := enroll(); r.status != 0 || !strings.Contains(r.stderr+r.stdout, "PCR 11 is bound to the value at the unlock in this boot") {
		t.Fatalf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	if m.opens(volume) {
		t.Error("it opens in the running system")
	}
	m.start("debian")
	say("enter-initrd")
	if !m.opens(volume) {
		t.Error("it does not open in the next initrd")
	}
}
