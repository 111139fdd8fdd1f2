package luks2

import (
	"context"
	"errors"
	"testing"
)

func TestCalibrateFillsInWhatIsOpen(t *testing.T) {
	for _, c := range []struct {
		name string
		in   KDF
	}{
		{"argon2id", KDF{Type: KDFArgon2id}},
		{"argon2i with fixed memory", KDF{Type: KDFArgon2i, MemoryKiB: 65536}},
		{"argon2id with fixed passes", KDF{Type: KDFArgon2id, Time: 2, Parallel: 1}},
		{"pbkdf2", KDF{Type: KDFPBKDF2, Hash: "sha256"}},
	} {
		got, err := Calibrate(t.Context(), c.in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.in.Time != 0 && got.Time != c.in.Time || c.in.MemoryKiB != 0 && got.MemoryKiB != c.in.MemoryKiB {
			t.Errorf("%s: a cost that was set changed: %+v", c.name, got)
		}
		if got.Type == KDFPBKDF2 {
			if got.Iterations < 1000 || got.MemoryKiB != 0 {
				t.Errorf("%s: %+v", c.name, got)
			}
			continue
		}
		if got.MemoryKiB < calibrateMinKiB || got.MemoryKiB > calibrateMemoryKiB || got.Time < 1 || got.Parallel < 1 || got.Parallel > calibrateMaxLanes {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestCalibrateKeepsAndChecksGivenCosts(t *testing.T) {
	in := KDF{Type: KDFArgon2id, MemoryKiB: 32, Time: 1, Parallel: 1}
	if got, err := Calibrate(t.Context(), in); err != nil || got.MemoryKiB != 32 || got.Time != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Calibrate(t.Context(), KDF{Type: KDFArgon2id, MemoryKiB: 1 << 30, Time: 4, Parallel: 1}); err == nil {
		t.Error("1 TiB accepted")
	}
	if _, err := Calibrate(t.Context(), KDF{Type: KDFPBKDF2, Hash: "md5"}); err == nil {
		t.Error("md5 accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Calibrate(ctx, KDF{Type: KDFArgon2id}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
