package tpm2

import (
	"context"
	"fmt"
	"time"

	"luksmith/luks2"
	"luksmith/luks2/argon2id"
	"luksmith/tokens"
)

// Default cost of stretching a PIN: systemd's.
const (
	defaultArgonMemory     = 64 << 20
	defaultArgonIterations = 8
	defaultArgonLanes      = 4
)

// maxArgonWork bounds memory times iterations of a token, in KiB: about two minutes of
// one core. A header must not be able to hang the boot for hours.
const maxArgonWork = 128 << 20

// Argon2idCost is how a PIN is stretched since systemd 262.
type Argon2idCost struct {
	Memory     uint64 // bytes; rounded down to KiB when used
	Iterations uint64
	Lanes      uint64
}

func (c *Argon2idCost) kib() uint64 { return c.Memory / 1024 }

// params are for costs that check and affordable have passed.
func (c *Argon2idCost) params(salt []byte) argon2id.Params {
	return argon2id.Params{Salt: salt, Time: int(c.Iterations), MemoryKiB: int(c.kib()), Lanes: int(c.Lanes)}
}

// check refuses what Argon2 does not allow (RFC 9106 §3.1).
func (c *Argon2idCost) check() error {
	if c.kib() < 8*c.Lanes || c.kib() > 1<<32-1 {
		return fmt.Errorf("is %d bytes for %d lanes", c.Memory, c.Lanes)
	}
	return nil
}

// benchmark raises the cost until one PIN takes systemd the wanted time on this
// machine: memory first, then iterations, unless they were given.
func (c *Argon2idCost) benchmark(ctx context.Context, given Argon2idCost, want time.Duration) error {
	const mostMemory = 1 << 30
	took, err := c.params(make([]byte, saltSize)).LibargonTime(ctx)
	if err != nil {
		return fmt.Errorf("measuring Argon2id: %w", err)
	}
	factor := float64(want) / float64(took)
	if given.Memory == 0 {
		memory := min(max(uint64(float64(c.Memory)*factor), 8<<20), mostMemory)
		factor *= float64(c.Memory) / float64(memory)
		c.Memory = memory
	}
	if given.Iterations == 0 {
		c.Iterations = max(uint64(float64(c.Iterations)*factor), 1)
	}
	return nil
}

// affordable refuses what this machine cannot or should not compute. The error is
// ErrUnsupported. A PIN that is not stretched, nil, costs nothing.
func (c *Argon2idCost) affordable() error {
	if c == nil {
		return nil
	}
	switch err := luks2.CheckMemory(c.kib()); {
	case err != nil:
		return fmt.Errorf("%w: stretching the PIN: %w", tokens.ErrUnsupported, err)
	case c.Lanes > 255:
		return fmt.Errorf("%w: the PIN is stretched in %d lanes, at most 255 are computed here", tokens.ErrUnsupported, c.Lanes)
	case c.Iterations > maxArgonWork || c.kib()*c.Iterations > maxArgonWork:
		return fmt.Errorf("%w: stretching the PIN in %d passes over %d MiB would take too long", tokens.ErrUnsupported, c.Iterations, c.Memory>>20)
	}
	return nil
}
