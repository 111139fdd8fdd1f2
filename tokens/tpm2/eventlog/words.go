package eventlog

import (
	"bytes"
)

// OSSeparator is the word that systemd-pcrosseparator.service (systemd 261 and later)
// extends before anything is unlocked, if the initrd has that unit.
const OSSeparator = "os-separator"

// separated are the PCRs that it extends (systemd 262
// units/systemd-pcrosseparator.service.in).
var separated = map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 9: true, 12: true, 13: true, 14: true}

// phases are the words that systemd-pcrphase extends into PCR 11, in their order
// (systemd-pcrphase(8)). The first comes before anything is unlocked in the initrd.
var phases = []string{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}

// Separated reports whether os-separator goes into a PCR.
func Separated(pcr int) bool { return separated[pcr] }

// After is the value of a PCR after words of user space.
func After(bank string, value []byte, words []string) []byte {
	for _, w := range words {
		h := hashes[bank].New()
		h.Write([]byte(w))
		value = Extend(bank, value, Event{Digests: map[string][]byte{bank: h.Sum(nil)}})
	}
	return value
}

// Words are what user space extended a PCR with between two values; ok is false if
// no words that are known lead from one to the other.
func Words(bank string, pcr int, from, to []byte) (words []string, ok bool) {
	if bytes.Equal(from, to) {
		return nil, true
	}
	if separated[pcr] && bytes.Equal(After(bank, from, []string{OSSeparator}), to) {
		return []string{OSSeparator}, true
	}
	if pcr != 11 {
		return nil, false
	}
	for start := range phases {
		for end := start + 1; end <= len(phases); end++ {
			if bytes.Equal(After(bank, from, phases[start:end]), to) {
				return phases[start:end], true
			}
		}
	}
	return nil, false
}
