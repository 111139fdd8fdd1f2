// Package chain holds the rules of what each program of a boot chain measures, and
// follows the chain from the firmware to the kernel.
//
// Each rule names where it is from and the boot that shows it, as "uki/stub252":
// chain and state in bootchain's testdata. What was not seen in a boot makes the
// PCRs it touches unknown: see [Run.Unknown].
package chain
