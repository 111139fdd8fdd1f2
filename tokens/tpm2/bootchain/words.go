package bootchain

import (
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/eventlog"
)

// Separator is the word that systemd-pcrosseparator.service (systemd 261 and later)
// extends before anything is unlocked, if the initrd has that unit.
const Separator = eventlog.OSSeparator

// enterInitrd is the one phase that comes before anything is unlocked in the initrd.
const enterInitrd = "enter-initrd"

// Words explains the value that a PCR has now by what user space extended since the
// kernel started, from the value that the boot chain left. before are the words that
// came before the first volume was unlocked.
func Words(pcr int, left chain.Digest, now []byte) (before []string, ok bool) {
	words, ok := eventlog.Words(chain.Bank, pcr, left[:], now)
	switch {
	case !ok || len(words) == 0:
		return nil, ok
	case words[0] == Separator || words[0] == enterInitrd:
		return words[:1], true
	}
	return nil, words[0] == "leave-initrd" || words[0] == "sysinit" // as without an initrd that knows the phases
}

// After is the value of a PCR after words.
func After(value chain.Digest, words []string) chain.Digest {
	copy(value[:], eventlog.After(chain.Bank, value[:], words))
	return value
}
