package chip

import (
	"fmt"
	"time"

	"luksmith/tokens"
)

// Lockout is the state of the TPM's defence against guessing PINs (TPM 2.0 Part 1
// §19.8).
type Lockout struct {
	Counter, Limit uint32
	// Interval is after how long one wrong try is forgotten; 0 is never.
	Interval time.Duration
	Locked   bool
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

// Lockout asks the TPM how near it is to refusing PINs.
func (c *Conn) Lockout() (*Lockout, error) {
	m, err := c.properties(propertyPermanent, propertyLockoutInterval-propertyPermanent+1)
	if err != nil {
		return nil, err
	}
	l := &Lockout{
		Counter: m[propertyLockoutCounter], Limit: m[propertyMaxAuthFail],
		Interval: time.Duration(m[propertyLockoutInterval]) * time.Second,
	}
	l.Locked = m[propertyPermanent]&inLockout != 0 || l.Counter >= l.Limit
	return l, nil
}

// Left is the number of wrong PINs until the TPM locks.
func (l *Lockout) Left() int {
	if l.Locked {
		return 0
	}
	return int(l.Limit - l.Counter)
}

// Err is ErrLocked with the time after which the next try is possible, or nil.
func (l *Lockout) Err() error {
	if !l.Locked {
		return nil
	}
	return tokens.WithHint(fmt.Errorf("the TPM is %w (%d of %d tries used up by wrong PINs or power cuts); %s", errLocked, l.Counter, l.Limit, l.Heals()),
		"open the volume with a passphrase or the recovery key; whoever started the system can reset it: tpm2_dictionarylockout --clear-lockout")
}

// errLocked is [tokens.ErrLocked] in the middle of a sentence.
var errLocked = lockedError{}

type lockedError struct{}

func (lockedError) Error() string        { return "locked" }
func (lockedError) Is(target error) bool { return target == tokens.ErrLocked }

// Heals says when the TPM forgets. It tells nobody how much of the running
// interval is over, so the times are upper bounds; it counts only while it has
// power.
func (l *Lockout) Heals() string {
	switch {
	case l.Interval == 0:
		return "it forgets none of them by itself"
	case l.Locked:
		next := time.Now().Add(l.Interval).Format("15:04")
		return fmt.Sprintf("it forgets one every %s, the next by %s at the latest, all %d in %s", spell(l.Interval), next, l.Limit, spell(time.Duration(l.Counter)*l.Interval))
	case l.Counter == 0:
		return "-"
	}
	return fmt.Sprintf("in at most %s", spell(time.Duration(l.Counter)*l.Interval))
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
