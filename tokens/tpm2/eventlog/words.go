package eventlog

import (
	"bytes"
)

// OSSeparator is the word that systemd-pcrosseparator.service (systemd 261 and later)
// extends before anything is unlocked, if the initrd has that unit.
const OSSeparator = "os-separator"

// phases are the words that systemd-pcrphase extends into PCR 11, in their order
// (systemd-pcrphase(8)). The first comes before anything is unlocked in the initrd.
var phases = []string{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}

// Separated reports whether os-separator goes into a PCR: 0 to 7, 9, 12 to 14 (systemd
// 262 units/systemd-pcrosseparator.service.in).
func Separated(pcr int) bool { return pcr <= 7 || pcr == 9 || pcr >= 12 && pcr <= 14 }

// After is the value of a PCR after words of user space.
func After(bank string, value []byte, words []string) []byte {
	for _, w := range words {
		h := hashOf(bank).New()
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
	if Separated(pcr) && bytes.Equal(After(bank, from, []string{OSSeparator}), to) {
		return []string{OSSeparator}, true
	}
	if pcr != 11 {
		return nil, false
	}
	for start := range phases {
		value := from
		for end := start; end < len(phases); end++ {
			if value = After(bank, value, phases[end:end+1]); bytes.Equal(value, to) {
				return phases[start : end+1], true
			}
		}
	}
	return nil, false
}
