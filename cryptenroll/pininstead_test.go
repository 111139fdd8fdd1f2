package main

import (
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// TestPINQuestionTakesThePassphrase: Enter leads on to it at once, whatever the number of
// tokens, and one that is typed for the PIN opens the volume and is not sent to the TPM,
// where it would cost a try.
func TestPINQuestionTakesThePassphrase(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	newPIN := []string{"NEWPIN=834719"}
	enroll := func(pcrs string) []string {
		return []string{"--tpm2-device=" + chip.Device(), "--tpm2-pcrs=" + pcrs, "--tpm2-with-pin=direct", v.Path}
	}
	for _, pcrs := range []string{"0", "1", "2"} {
		if r := runCommand(t, alone(t, append(newPIN, oldPassphrase...), enroll(pcrs)...)); r.status != 0 {
			t.Fatal(r.stderr)
		}
	}
	const pin = `PIN of the TPM for [^:]*3 tries left, or Enter for the passphrase:`

	enter := sitWith(t, newPIN, enroll("3")...)
	enter.sees(pin)
	enter.types("\r")
	enter.sees(`current passphrase for disk`)
	enter.types(luks2test.Passphrase + "\r")
	enter.sees(`Enrolled keyslot 4 `)
	enter.ends(0)

	typed := sitWith(t, newPIN, enroll("4")...)
	typed.sees(pin)
	typed.types(luks2test.Passphrase + "\r")
	typed.sees(`Enrolled keyslot 5 `)
	typed.ends(0)

	only := sit(t, "test", "--unlock-tpm2-device="+chip.Device(), v.Path)
	only.sees(`PIN of the TPM for [^:]*3 tries left:`) // the passphrase has cost none
	only.types("\r")
	only.sees(`error: keyslot \d \(tpm2\): no PIN was typed`)
	only.ends(11)
}
