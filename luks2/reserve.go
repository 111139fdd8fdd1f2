package luks2

import "luksmith/luks2/argon2id"

// reserveMargin is how many times the memory must be available that is reserved before
// it is needed: others unlock at the same time.
const reserveMargin = 3

// Reserve has the kernel find the memory that the costliest keyslot needs which a
// passphrase may open, in the background, for the time in which a person types. The
// next [Device.OpenKeyslot] calls of this Device use it, one after the other. release
// gives it back and may be called more than once. Where no keyslot uses Argon2, or
// memory is short, nothing happens.
func (d *Device) Reserve(h *Header) (release func()) {
	k := h.hungriest()
	if k == nil || enoughMemory(reserveMargin*k.MemoryKiB) != nil {
		return func() {}
	}
	m, err := argon2id.Reserve(k.MemoryKiB, k.Parallel)
	if err != nil {
		return func() {} // what needs it will say so
	}
	old := d.reserve(m)
	if old != nil {
		old.Release()
	}
	return func() {
		d.mu.Lock()
		if d.memory == m {
			d.memory = nil
		}
		d.mu.Unlock()
		m.Release()
	}
}

func (d *Device) reserve(m *argon2id.Memory) (old *argon2id.Memory) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, d.memory = d.memory, m
	return old
}

// reserved is the memory of Reserve, nil if there is none.
func (d *Device) reserved() *argon2id.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory
}

// hungriest is the KDF with the largest memory among the keyslots that a passphrase
// is tried on; nil if none uses Argon2.
func (h *Header) hungriest() (most *KDF) {
	for _, slot := range h.PassphraseOrder() {
		k, ok := h.Keyslot(slot)
		if !ok || k.KDF.Type == KDFPBKDF2 || h.KeyslotObstacle(slot) != nil {
			continue
		}
		if most == nil || k.KDF.MemoryKiB > most.MemoryKiB {
			most = &k.KDF
		}
	}
	return most
}
