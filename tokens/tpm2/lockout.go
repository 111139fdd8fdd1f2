package tpm2

import (
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
)

// lockout is the state of the TPM's defence against guessing PINs (TPM 2.0 Part 1
// §19.8).
type lockout struct {
	counter, limit uint32
	// interval is after how long one wrong try is forgotten; 0 is never.
	interval time.Duration
	locked   bool
}

// Properties of TPM2_GetCapability (TPM 2.0 Part 2 §6.13).
const (
	propertyPermanent       = 0x200
	propertyLockoutCounter  = 0x20e
	propertyMaxAuthFail     = 0x20f
	propertyLockoutInterval = 0x210
	inLockout               = 1 << 9 // of TPMA_PERMANENT

	propertyManufacturer = 0x105
	propertyVendor1      = 0x106
	propertyVendor4      = 0x109
	propertyFirmware1    = 0x10b
	propertyFirmware2    = 0x10c
)

// properties reads count properties from first on.
func (c *conn) properties(first, count uint32) (map[uint32]uint32, error) {
	rsp, err := run(c, "TPM2_GetCapability", tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: first, PropertyCount: count})
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	m := map[uint32]uint32{}
	for _, p := range list.TPMProperty {
		m[uint32(p.Property)] = p.Value
	}
	return m, nil
}

func (c *conn) lockout() (*lockout, error) {
	m, err := c.properties(propertyPermanent, propertyLockoutInterval-propertyPermanent+1)
	if err != nil {
		return nil, err
	}
	l := &lockout{
		counter: m[propertyLockoutCounter], limit: m[propertyMaxAuthFail],
		interval: time.Duration(m[propertyLockoutInterval]) * time.Second,
	}
	l.locked = m[propertyPermanent]&inLockout != 0 || l.counter >= l.limit
	return l, nil
}

// left is the number of wrong PINs until the TPM locks.
func (l *lockout) left() int {
	if l.locked {
		return 0
	}
	return int(l.limit - l.counter)
}

// err is ErrLocked with the time after which the next try is possible, or nil.
func (l *lockout) err() error {
	if !l.locked {
		return nil
	}
	return tokens.WithHint(fmt.Errorf("%w: %d of %d wrong PINs were counted; %s", tokens.ErrLocked, l.counter, l.limit, l.heals()),
		"open the volume with a passphrase or the recovery key; who started the system can let the TPM forget: tpm2_dictionarylockout --clear-lockout")
}

// heals says when the TPM forgets. It tells nobody how much of the running
// interval is over, so the times are upper bounds; it counts only while it has
// power.
func (l *lockout) heals() string {
	switch {
	case l.interval == 0:
		return "it forgets none of them by itself"
	case l.locked:
		return fmt.Sprintf("the next try is possible in at most %s, all %d in %s", spell(l.interval), l.limit, spell(time.Duration(l.counter)*l.interval))
	case l.counter == 0:
		return "-"
	}
	return fmt.Sprintf("in at most %s", spell(time.Duration(l.counter)*l.interval))
}

// spell writes a duration in its two largest units: "16 min 40 s".
func spell(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.size && u.size != time.Second {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.size, u.name)
		if i+1 < len(units) && d%u.size >= units[i+1].size {
			text += fmt.Sprintf(" %d %s", d%u.size/units[i+1].size, units[i+1].name)
		}
		return text
	}
	return "0 s"
}
