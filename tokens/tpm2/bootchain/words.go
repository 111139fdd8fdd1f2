package bootchain

import (
	"bytes"
	"crypto/sha256"

	"luksmith/tokens/tpm2/bootchain/chain"
)

// Separator is the word that systemd-pcrosseparator.service (systemd 261 and later)
// extends before anything is unlocked, if the initrd has that unit.
const Separator = "os-separator"

// separated are the PCRs that it extends (systemd 262
// units/systemd-pcrosseparator.service.in).
var separated = map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 9: true, 12: true, 13: true, 14: true}

// phases are the words that systemd-pcrphase extends into PCR 11, in their order
// (systemd-pcrphase(8)). The first comes before anything is unlocked in the initrd.
var phases = []string{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}

// word is a PCR's value after a word of user space.
func word(value chain.Digest, text string) chain.Digest {
	return chain.Extend(value, sha256.Sum256([]byte(text)))
}

// Words explains the value that a PCR has now by what user space extended since the
// kernel started, from the value that the boot chain left. before are the words that
// came before the first volume was unlocked.
func Words(pcr int, left chain.Digest, now []byte) (before []string, ok bool) {
	if bytes.Equal(left[:], now) {
		return nil, true
	}
	if separated[pcr] {
		if w := word(left, Separator); bytes.Equal(w[:], now) {
			return []string{Separator}, true
		}
	}
	if pcr == 11 {
		return phaseWords(left, now)
	}
	return nil, false
}

// phaseWords tries the phases that may have been reached, with an initrd that knows
// them and without.
func phaseWords(left chain.Digest, now []byte) (before []string, ok bool) {
	for start := range 3 {
		value := left
		for i, p := range phases[start:] {
			value = word(value, p)
			if bytes.Equal(value[:], now) {
				if start == 0 {
					before = phases[:1]
				}
				return before, i >= 0
			}
		}
	}
	return nil, false
}

// After is the value of a PCR after words.
func After(value chain.Digest, words []string) chain.Digest {
	for _, w := range words {
		value = word(value, w)
	}
	return value
}

// Separated reports whether os-separator goes into a PCR.
func Separated(pcr int) bool { return separated[pcr] }
