package luks2

import (
	"context"
	"fmt"
	"slices"

	"luksmith/luks2/secret"
)

// Rehearse runs fn as [Device.Update] does and says whether what it puts together
// would be written: whether there is a number, an area and room in the text for
// each keyslot and token. Nothing is written, no lock is held, no key derivation
// runs, and [Tx.AddKeyslot] needs neither key nor passphrase.
//
// Errors: those of fn, [ErrReadOnly], [RequirementError], [ErrSignature],
// [SpaceError].
func (d *Device) Rehearse(ctx context.Context, fn func(*Tx) error) error {
	s, base, err := d.beginReading(ctx)
	if err != nil {
		return err
	}
	s.end()
	tx, err := d.run(ctx, base, &workshop{ctx: ctx, rehearsal: true}, fn)
	if err != nil {
		return err
	}
	if err := tx.check(); err != nil {
		return fmt.Errorf("changing header of %s: %w", d.header, err)
	}
	return nil
}

// dataKey is a keyslot with the key of the data, or nil. It takes time in proportion
// to the header, however many objects that has.
func (h *Header) dataKey() *Keyslot {
	data, ok := h.DataSegment()
	if !ok {
		return nil
	}
	recognises := make(map[int]bool)
	for _, d := range h.Digests {
		recognises[d.ID] = slices.Contains(d.Segments, data.ID)
	}
	for i := range h.Keyslots {
		if recognises[h.Keyslots[i].Digest] {
			return &h.Keyslots[i]
		}
	}
	return nil
}

// dataKeySize is the length of the data's key in bytes; 0 if no keyslot has it.
func (h *Header) dataKeySize() int {
	if k := h.dataKey(); k != nil {
		return k.KeySize
	}
	return 0
}

// anyKey stands for the key of the data where only its length counts.
func (h *Header) anyKey() *VolumeKey {
	k := h.dataKey()
	if k == nil || k.KeySize < 1 || k.KeySize > maxKeySize {
		return &VolumeKey{Digest: -1}
	}
	return &VolumeKey{Key: secret.New(k.KeySize), Slot: k.ID, Digest: k.Digest}
}
