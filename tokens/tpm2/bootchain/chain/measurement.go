package chain

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"luksmith/tokens/tpm2/eventlog"
)

// Bank is the bank that is predicted.
const Bank = "sha256"

// Predictable are the PCRs that the chain writes before user space runs. PCR 10 is
// the kernel's IMA, 15 and later belong to user space.
var predictable = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14}

// Predictable returns the PCRs that can be predicted at all.
func Predictable() []int { return slices.Clone(predictable) }

// Measurement is one extension of a PCR. The digest is computed when it is asked
// for: nobody waits for files that belong to other PCRs.
type Measurement struct {
	PCR    int
	What   string // for people: "program", "section .initrd"
	File   string // where it comes from; "" for what the firmware does by itself
	Digest func() (Digest, error)
}

// known is a measurement whose digest is there.
func known(pcr int, d Digest, what, file string) Measurement {
	return Measurement{pcr, what, file, func() (Digest, error) { return d, nil }}
}

// once computes a digest a single time.
func once(f func() (Digest, error)) func() (Digest, error) {
	var d Digest
	var err error
	done := false
	return func() (Digest, error) {
		if !done {
			d, err = f()
			done = true
		}
		return d, err
	}
}

// kept repeats an event of the running boot.
func kept(e eventlog.Event) Measurement {
	return Measurement{e.PCR, e.String(), "", func() (d Digest, err error) {
		b := e.Digests[Bank]
		if len(b) != len(d) {
			return d, fmt.Errorf("the event log has no SHA-256 digest of %q", e.String())
		}
		copy(d[:], b)
		return d, nil
	}}
}

// Extend is the value of a PCR after a measurement.
func Extend(value, d Digest) Digest {
	return sha256.Sum256(append(value[:], d[:]...))
}

// Of selects the measurements of one PCR.
func Of(list []Measurement, pcr int) []Measurement {
	var of []Measurement
	for _, m := range list {
		if m.PCR == pcr {
			of = append(of, m)
		}
	}
	return of
}

// Replay is the value that measurements give a PCR from its start.
func Replay(value Digest, list []Measurement, pcr int) (Digest, error) {
	for _, m := range Of(list, pcr) {
		d, err := m.Digest()
		if err != nil {
			return value, fmt.Errorf("%s: %w", m.Subject(), err)
		}
		value = Extend(value, d)
	}
	return value, nil
}

// Subject names what is measured: "section .initrd of /EFI/Linux/arch.efi".
func (m Measurement) Subject() string {
	if m.File == "" {
		return m.What
	}
	return m.What + " of " + m.File
}
