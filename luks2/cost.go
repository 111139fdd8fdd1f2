package luks2

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Caps on what a header may ask for. libcryptsetup allows itself at most 4 GiB
// and 4 lanes when it formats; a slot beyond these caps would keep a machine busy
// for minutes or is hostile.
const (
	maxKeySize          = 512     // bytes of a volume key; dm-crypt with integrity uses up to 192
	maxPBKDF2Iterations = 1 << 28 // one to three minutes
	maxArgon2MemoryKiB  = 4 << 20
	maxArgon2Work       = 128 << 20 // KiB times passes: 4 GiB 32 times over, about two minutes
	maxArgon2Lanes      = 64
	minArgon2LaneKiB    = 8 // RFC 9106 §3.1: memory is at least 8 KiB for each lane
)

func capped(what, unit string, need, limit uint64) error {
	if need > limit {
		return &CostError{What: what, Unit: unit, Need: need, Limit: limit}
	}
	return nil
}

// costs says whether the parameters are within the algorithm's range and the caps.
func (k *KDF) costs() error {
	if k.Type == KDFPBKDF2 {
		return iterationsCost(k.Iterations)
	}
	if k.Time < 1 || k.Parallel < 1 || k.MemoryKiB < minArgon2LaneKiB*k.Parallel {
		return fmt.Errorf("parameters of %s are out of range: time %d, memory %d KiB, lanes %d", k.Type, k.Time, k.MemoryKiB, k.Parallel)
	}
	return firstError(capped("lanes", "", uint64(k.Parallel), maxArgon2Lanes),
		capped("memory", "KiB", uint64(k.MemoryKiB), maxArgon2MemoryKiB),
		capped("time", "KiB-passes", uint64(k.MemoryKiB)*uint64(k.Time), maxArgon2Work))
}

func iterationsCost(n int) error {
	if n < 1 {
		return fmt.Errorf("%d iterations are out of range", n)
	}
	return capped("iterations", "", uint64(n), maxPBKDF2Iterations)
}

// maxShares bounds what one passphrase may cost on all keyslots together, in units
// of what a single one may cost: twice that of 32 keyslots as cryptsetup makes them.
const maxShares = 6

// errTooMuch is about a keyslot behind others that cost too much together.
var errTooMuch = errors.New("not tried: the keyslots before it took too long; name this one to try it")

// share is the part of the cap that trying a keyslot takes, its digest included.
// One that cannot be tried takes nothing.
func (h *Header) share(slot int) float64 {
	if h.KeyslotObstacle(slot) != nil {
		return 0
	}
	k, _ := h.Keyslot(slot)
	d, _ := h.Digest(k.Digest)
	n := float64(d.Iterations) / maxPBKDF2Iterations
	if k.KDF.Type == KDFPBKDF2 {
		return n + float64(k.KDF.Iterations)/maxPBKDF2Iterations
	}
	return n + float64(k.KDF.MemoryKiB)*float64(k.KDF.Time)/maxArgon2Work
}

// isCheap reports whether trying a passphrase on the slot costs next to nothing:
// such are the slots of tokens, whose passphrase is a random key.
func (k *KDF) isCheap() bool { return k.Type == KDFPBKDF2 && k.Iterations <= 10*MinimalKDF.Iterations }

// enoughMemory says whether the machine has that much memory free right now.
func enoughMemory(needKiB int) error {
	have := meminfoKiB("MemAvailable:") // what can be had without swapping
	if have != 0 && uint64(needKiB) > have {
		return &CostError{What: "memory", Unit: "KiB", Need: uint64(needKiB), Limit: have, Machine: true}
	}
	return nil
}

// meminfoKiB is a figure of /proc/meminfo; 0 if the kernel does not tell.
func meminfoKiB(name string) uint64 {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(meminfo) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == name {
			n, _ := strconv.ParseUint(string(f[1]), 10, 64)
			return n
		}
	}
	return 0
}

// CheckMemory says whether Argon2 may use that much memory on this machine now: it
// is below the cap for keyslots and available without swapping. The error is a
// *[CostError].
func CheckMemory(needKiB uint64) error {
	if err := capped("memory", "KiB", needKiB, maxArgon2MemoryKiB); err != nil {
		return err
	}
	return enoughMemory(int(needKiB))
}
