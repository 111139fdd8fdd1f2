// Package bootchain says which PCR values the next boot of this machine will have.
//
// It knows what the programs of a boot chain measure (firmware, shim, systemd-boot,
// GRUB, systemd-stub, the kernel's own EFI stub) and computes it from the files that
// will be started. It knows no TPM and no volume.
//
// Nothing is guessed. A PCR is predicted only if the same rules, applied to the
// files of the boot that is running, give the value that this boot has, and only
// from programs whose version was measured: see measuredVersions. Everything else
// is [Unknown], with the reason.
//
// Each rule names where it is from and the boot that shows it, as "uki/stub252":
// chain and state of testdata, event logs of real boots. README.md there says how
// they were made.
package bootchain
