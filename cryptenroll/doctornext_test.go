package main

import (
	"strings"
	"testing"

	"luksmith/internal/test/petest"
)

// TestDoctorLooksAtTheNextBoot: an update is told before the reboot, with its file.
func TestDoctorLooksAtTheNextBoot(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	if r := runCommand(t, m.command("--tpm2-device="+m.chip.Device(), "--tpm2-pcrs=4+7", "--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	m.put("etc/crypttab", []byte("root "+volume+" none tpm2-device=auto\n"))
	doctor := func(want string) {
		t.Helper()
		r := runCommand(t, m.command("doctor", "--crypttab=/etc/crypttab", "--esp-path=/efi", "--unlock-tpm2-device="+m.chip.Device(), volume))
		got := ""
		for line := range strings.Lines(r.stdout) {
			if strings.Contains(line, "next boot") || strings.Contains(line, "tpm2") || strings.Contains(line, "follow") {
				got += line
			}
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("status %d\n%s%s\nwant %q", r.status, r.stdout, r.stderr, want)
		}
	}
	doctor("")
	m.install("debian-6.12.2", "another kernel")
	doctor("problem: next boot of debian-6.12.2: no TPM2 keyslot opens the volume then: PCR 4 moved by /EFI/Linux/debian-6.12.2.efi (systemd-stub)\n    cryptenroll follow " + volume)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", volume))
	doctor("")
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("262"))
	doctor("PCR 4 moved by /EFI/BOOT/BOOTX64.EFI (systemd-boot)")
	m.put("efi/EFI/BOOT/BOOTX64.EFI", petest.Loader("259"))
	doctor("warning: next boot of debian-6.12.1: it cannot be told whether a TPM2 keyslot opens the volume then: PCR 4: /EFI/BOOT/BOOTX64.EFI is systemd-boot 259, and what this version measures was not compared with a TPM")
}
