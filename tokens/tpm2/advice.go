package tpm2

import (
	"fmt"

	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// volatilePCRs change with ordinary updates; docs/tpm2.md explains each.
var volatilePCRs = map[int]string{
	0: "a firmware update", 1: "a change in the firmware setup or of the hardware", 2: "an update of a plug-in card", 3: "a change of a plug-in card",
	4: "an update of the boot loader or kernel", 5: "a change of the partition table or of the boot loader's settings", 8: "a change of the boot loader's commands",
	9: "an update of kernel or initrd", 10: "every file that is measured at run time", 11: "an update of the kernel image",
	12: "a change of the kernel's command line", 13: "a change of a system extension", 14: "a change of the machine owner keys",
}

// warn adds notes about weaknesses and costs of the choice.
func (s *settings) warn() {
	note := func(format string, args ...any) { s.notes = append(s.notes, fmt.Sprintf(format, args...)) }
	bound := s.key != nil || s.pcrlock != nil
	switch {
	case s.pin == pinNone && !bound && s.pcrs.Set&^chip.PCRSetOf(policy.LatchPCR) == 0:
		note("Any operating system that is started on this machine can unseal this key. Consider --tpm2-pcrs=7 together with --tpm2-with-pin=yes, or a signed policy.")
	case s.pin == pinNone && !bound && s.pcrs.Set&^chip.PCRSetOf(policy.LatchPCR) == chip.PCRSetOf(7):
		note("PCR 7 alone lets every system unseal this key that Secure Boot accepts here, other people's installation media included. Consider --tpm2-with-pin=yes or a signed policy.")
	}
	for _, i := range s.pcrs.Set.List() {
		if why, ok := volatilePCRs[i]; ok {
			note("The value of PCR %d changes with %s; run cryptenroll reseal after it.", i, why)
		}
	}
	if s.pcrs.Bank == chip.BankSHA1 {
		note("Bank sha1 is weak: values for it can be forged.")
	}
	if !s.pcrs.Set.Has(policy.LatchPCR) {
		note("No latch: what runs after the volume was opened can unseal the key again. See --tpm2-latch.")
	}
	if s.compat < sinceSRK {
		note("For systemd %d the key is sealed under a transient storage key, so the token cannot tell another TPM from this one before a PIN is used.", s.compat)
	}
	if s.pin == pinDirect && s.compat < sinceSalt {
		note("For systemd %d the PIN is used without a salt.", s.compat)
	}
}
