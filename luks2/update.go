package luks2

import (
	"bytes"
	"context"
	"fmt"
)

// Update changes the header in one transaction. fn puts the change together; it
// is called without a lock on a header that was just read, and again on a fresh
// one if another writer was first, so it must depend on tx and its own arguments
// only, and must not wait for people or devices. An error of fn is returned as it
// is and nothing is written; neither is anything if fn changed nothing.
//
// What is written when, and what holds at every moment of it, is in
// docs/architecture.md, "Transactions". In short: new key material, then the
// primary copy, then the secondary, each followed by fsync; removed keyslots are
// overwritten after that and then dropped from the header. A damaged copy is
// repaired on the way.
//
// Errors besides fn's: [ErrReadOnly], [RequirementError], [SpaceError],
// [ErrChanged], [ErrBusy] and I/O errors, after which the state of the disk is
// unknown but valid: the old or the new header is read from it.
func (d *Device) Update(ctx context.Context, fn func(*Tx) error) error {
	if d.readOnly {
		return fmt.Errorf("changing %s: %w", d.header, ErrReadOnly)
	}
	s, base, err := d.beginReading(ctx)
	if err != nil {
		return err
	}
	s.end()
	shop := &workshop{ctx: ctx, workspace: d.workspace}
	defer shop.wipe()
	for base != nil {
		tx, err := d.run(ctx, base, shop, fn)
		if err != nil {
			return err
		}
		if !tx.changes() {
			return nil
		}
		if base, err = d.commit(ctx, tx); err != nil {
			return fmt.Errorf("changing header of %s: %w", d.header, err)
		}
	}
	return nil
}

// run lets fn work on a header that may be written to.
func (d *Device) run(ctx context.Context, base *loaded, shop *workshop, fn func(*Tx) error) (*Tx, error) {
	d.mu.Lock()
	changed := *d.seen != base.identity()
	d.mu.Unlock()
	if changed {
		return nil, fmt.Errorf("changing header of %s: %w", d.header, ErrChanged)
	}
	if err := base.own().WriteObstacle(); err != nil {
		return nil, fmt.Errorf("changing header of %s: %w", d.header, err)
	}
	tx, err := newTx(ctx, base, shop)
	if err != nil {
		return nil, err
	}
	if err := fn(tx); err != nil {
		return nil, err
	}
	return tx, ctx.Err()
}

// changes reports whether there is anything to write.
func (tx *Tx) changes() bool {
	bin := tx.base.chosen.bin
	return tx.rewrite || !bytes.Equal(tx.final.Bytes(), tx.start.Bytes()) || tx.label != bin.label() || tx.subsystem != bin.subsystem()
}

// commit takes the write lock and writes, or returns the header that stands there
// now if it is not the one that tx is based on.
func (d *Device) commit(ctx context.Context, tx *Tx) (newer *loaded, err error) {
	if err := tx.check(); err != nil {
		return nil, err
	}
	s, err := d.begin(ctx, true)
	if err != nil {
		return nil, err
	}
	defer s.end()
	now, err := d.load(s)
	if err != nil {
		return nil, err
	}
	if !now.equal(tx.base) {
		return now, nil
	}
	w := &writer{f: s, size: s.file.size, base: now, seqID: now.chosen.bin.seqID()}
	return nil, tx.write(w)
}

// equal reports whether two readings chose the same content.
func (h *loaded) equal(other *loaded) bool {
	a, b := h.chosen, other.chosen
	return a.bin.seqID() == b.bin.seqID() && bytes.Equal(a.area, b.area) && a.bin.label() == b.bin.label() &&
		a.bin.subsystem() == b.bin.subsystem() && a.bin.uuid() == b.bin.uuid()
}

// twoPhases reports whether the grown document has to stand on the disk while key
// areas are overwritten.
func (tx *Tx) twoPhases() bool { return len(tx.added) > 0 && len(tx.removed) > 0 }

// headers is how many headers write makes, each with the next sequence number.
func (tx *Tx) headers() uint64 {
	if tx.twoPhases() {
		return 2
	}
	return 1
}

// check looks at the documents that will be written before anything is.
func (tx *Tx) check() error {
	v := tx.view(tx.final)
	if err := firstError(v.fits(), validator{}.checkJSON(jsonRules[:], v)); err != nil {
		return fmt.Errorf("checking the new header: %w", err)
	}
	if !tx.twoPhases() {
		return nil
	}
	v = tx.view(tx.grown)
	if err := firstError(v.fits(), validator{}.checkJSON(jsonRules[:], v)); err != nil {
		return fmt.Errorf("checking the header with new and old keyslots: %w", err)
	}
	return nil
}
