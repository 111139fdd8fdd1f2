package luks2

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/kdf"
)

// What Calibrate aims at: the defaults of cryptsetup 2.6 to 2.8 for LUKS2.
const (
	calibrateTime      = 2 * time.Second
	calibrateMemoryKiB = 1 << 20
	calibrateMinKiB    = 64 << 10
	calibrateMinTime   = 4
	calibrateMaxLanes  = 4
)

// Calibrate fills in the costs that are zero so that one try takes cryptsetup or
// systemd about two seconds on this machine: up to 1 GiB of memory, but at most
// half of what the machine has, up to four lanes, and as many passes or iterations
// as it takes. It measures for about a fifth of a second. Costs that are set stay.
//
// The costs are what cryptsetup would choose, not what this package could compute
// in that time: more would make everybody else wait.
func Calibrate(ctx context.Context, k KDF) (KDF, error) {
	if k.Type == KDFPBKDF2 {
		return calibratePBKDF2(ctx, k)
	}
	if k.Parallel == 0 {
		k.Parallel = min(calibrateMaxLanes, runtime.NumCPU())
	}
	if k.MemoryKiB != 0 && k.Time != 0 {
		return k, k.costs()
	}
	rate, err := k.argon2Rate(ctx)
	if err != nil {
		return k, fmt.Errorf("measuring %s: %w", k.Type, err)
	}
	work := int(calibrateTime.Seconds() * rate) // KiB times passes
	passes := max(k.Time, calibrateMinTime)
	if k.Time != 0 {
		passes = k.Time
	}
	if k.MemoryKiB == 0 {
		k.MemoryKiB = max(calibrateMinKiB, min(work/passes, calibrateMemoryKiB, totalKiB()/2))
	}
	if k.Time == 0 {
		k.Time = max(calibrateMinTime, work/k.MemoryKiB)
	}
	return k, k.costs()
}

// argon2Rate estimates how many KiB times passes libargon2 computes in a second
// with the lanes of k, on memory small enough to be quick and large enough to miss
// the caches.
func (k KDF) argon2Rate(ctx context.Context) (float64, error) {
	k.Salt, k.Time, k.MemoryKiB = make([]byte, saltSize), 2, 64<<10
	took, err := k.argon2().LibargonTime(ctx)
	return float64(k.Time*k.MemoryKiB) / took.Seconds(), err
}

func calibratePBKDF2(ctx context.Context, k KDF) (KDF, error) {
	if k.Iterations != 0 {
		return k, k.costs()
	}
	f, ok := hashes.ByName(k.Hash)
	if !ok {
		return k, fmt.Errorf("measuring pbkdf2: hash %q is not available", k.Hash)
	}
	const sample = 10000
	// cryptsetup measures with the length of the volume key, which is 64 bytes unless
	// somebody chose another cipher: with SHA-256 twice the work of 32.
	out := make([]byte, 64)
	begin := time.Now()
	if err := kdf.PBKDF2(ctx, f, []byte("calibration"), make([]byte, saltSize), sample, out); err != nil {
		return k, fmt.Errorf("measuring pbkdf2: %w", err)
	}
	rate := sample / time.Since(begin).Seconds()
	k.Iterations = max(MinimalKDF.Iterations, int(calibrateTime.Seconds()*rate))
	return k, k.costs()
}

// totalKiB is the machine's memory; a value without effect if the kernel does not
// tell.
func totalKiB() int {
	if n := meminfoKiB("MemTotal:"); n != 0 {
		return int(n)
	}
	return 2 * calibrateMemoryKiB
}
