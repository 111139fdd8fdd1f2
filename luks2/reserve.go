package luks2

import "luksmith/luks2/argon2id"

// reserveMargin is how many times the memory must be available that is taken before, or
// beside, what is needed: others unlock at the same time.
const reserveMargin = 3

// Reserve has the kernel find the memory that the costliest keyslot needs which a
// passphrase may open, in the background, for the time in which a person types.
// [Device.OpenKeyslot] uses it, of this Device and of those that share its
// [Workspace]. release gives it back and may be called more than once. Where no keyslot
// uses Argon2, or memory is short or gets short, nothing more is taken.
func (d *Device) Reserve(h *Header) (release func()) {
	k := h.hungriest()
	if k == nil || d.workspace.enough(reserveMargin*k.MemoryKiB) != nil {
		return func() {}
	}
	return d.workspace.reserve(k)
}

// reserve is Hold with memory for k, unless a KDF is about to leave some.
func (w *Workspace) reserve(k *KDF) (release func()) {
	release = w.Hold()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, missing := w.best(k); missing == 0 || w.running > 0 {
		return release
	}
	m, err := argon2id.NewMemory(k.MemoryKiB, k.Parallel)
	if err != nil {
		return release // what needs it will say so
	}
	m.Populate(func() bool { return w.enough((reserveMargin-1)*k.MemoryKiB) == nil })
	w.drop()
	w.idle = append(w.idle, m)
	return release
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
