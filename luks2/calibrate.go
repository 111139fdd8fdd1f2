package luks2

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/internal/kdf"
	"luksmith/luks2/secret"
)

// What Calibrate aims at: the defaults of cryptsetup 2.6 to 2.8 for LUKS2.
const (
	calibrateTime      = 2 * time.Second
	calibrateMemoryKiB = 1 << 20
	calibrateMinKiB    = 64 << 10
	calibrateMinTime   = 4
	calibrateMaxLanes  = 4
)

// Calibrate fills in the costs that are zero so that one try takes about two
// seconds on this machine: up to 1 GiB of memory, but at most half of what the
// machine has, up to four lanes, and as many passes or iterations as it takes.
// It measures for about a fifth of a second. Costs that are set stay.
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
	rate, err := argon2Rate(ctx, k)
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

// argon2Rate measures KiB times passes per second, with the lanes of k, on memory
// small enough to be quick and large enough to miss the caches.
func argon2Rate(ctx context.Context, k KDF) (float64, error) {
	const sampleKiB = 64 << 10
	passphrase, out := secret.Copy([]byte("calibration")), secret.New(32)
	defer secret.WipeAll([]secret.Secret{passphrase, out})
	a := kdf.Argon2{Independent: k.Type == KDFArgon2i, Salt: make([]byte, saltSize), Time: 1, MemoryKiB: sampleKiB, Lanes: k.Parallel}
	if err := a.Key(ctx, passphrase, out); err != nil { // maps the memory
		return 0, err
	}
	begin := time.Now()
	if err := a.Key(ctx, passphrase, out); err != nil {
		return 0, err
	}
	return sampleKiB / time.Since(begin).Seconds(), nil
}

func calibratePBKDF2(ctx context.Context, k KDF) (KDF, error) {
	if k.Iterations != 0 {
		return k, k.costs()
	}
	f, ok := hashes.ByName(k.Hash)
	if !ok {
		return k, fmt.Errorf("measuring pbkdf2: hash %q is not available", k.Hash)
	}
	const sample = 20000
	out := make([]byte, 32)
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
