package luks2

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"luksmith/luks2/internal/jsondoc"
)

// write does what tx says, in the order that docs/architecture.md argues for:
//
//	key material  fsync    if keyslots are added
//	primary       fsync  }
//	secondary     fsync  } the grown document, only if keyslots are added and removed
//	random data   fsync    over the areas of removed keyslots
//	primary       fsync
//	secondary     fsync    the final document
//
// So an enrolment takes 3 fsync, a wipe 3, both in one 6, a label or token 2.
func (tx *Tx) write(w *writer) error {
	if headers := tx.headers(); w.seqID > math.MaxUint64-headers {
		return errors.New("the sequence number has reached its end")
	}
	if err := tx.writeMaterial(w); err != nil {
		return err
	}
	if tx.twoPhases() {
		if err := w.header(tx.grown, tx.label, tx.subsystem); err != nil {
			return err
		}
		if err := tx.proveAdded(w); err != nil {
			return err
		}
	}
	if err := tx.overwriteRemoved(w); err != nil {
		return err
	}
	return w.header(tx.final, tx.label, tx.subsystem)
}

func (tx *Tx) writeMaterial(w *writer) error {
	if len(tx.added) == 0 {
		return nil
	}
	for _, p := range tx.added {
		if _, err := w.f.WriteAt(p.material, int64(p.offset)); err != nil {
			return err
		}
	}
	return w.f.Sync()
}

// proveAdded reads the new keyslots back before anything that opens today is
// destroyed: from the device, as far as the kernel lets go of what it has cached.
func (tx *Tx) proveAdded(w *writer) error {
	if f, ok := w.f.(interface{ uncache() }); ok {
		f.uncache()
	}
	now, err := validator{}.load(w.f, w.size)
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	h := now.header()
	for _, p := range tx.added {
		k, ok := h.Keyslot(p.id)
		if !ok {
			return &KeyslotError{p.id, errors.New("cannot be read back; no keyslot was removed")}
		}
		key, err := k.recover(w.f, p.areaKey)
		if err != nil {
			return &KeyslotError{p.id, fmt.Errorf("reading back: %w", err)}
		}
		same := key.Equal(p.key)
		key.Wipe()
		if !same {
			return &KeyslotError{p.id, errors.New("another key was read back than was written; no keyslot was removed")}
		}
	}
	return nil
}

// wipeBlock is how much random data is made at a time.
const wipeBlock = 256 << 10

// overwriteRemoved makes the areas of removed keyslots unreadable while the header
// still names them: once a keyslot is gone from the header it is gone for good,
// and a crash leaves a dead keyslot that can be wiped again.
//
// Unlike libcryptsetup, which makes up to 39 passes with patterns for disk
// encodings of the 1990s: one pass of random data. A single lost stripe of the
// 4000 makes the key unrecoverable.
func (tx *Tx) overwriteRemoved(w *writer) error {
	if len(tx.removed) == 0 {
		return nil
	}
	block := make([]byte, wipeBlock)
	for _, a := range tx.removed {
		for done := uint64(0); done < a.Size; done += wipeBlock {
			part := block[:min(wipeBlock, a.Size-done)]
			rand.Read(part) // never fails, see crypto/rand
			if _, err := w.f.WriteAt(part, int64(a.Offset+done)); err != nil {
				return err
			}
		}
	}
	return w.f.Sync()
}

// writer writes headers under the write lock.
type writer struct {
	f     storage
	size  uint64 // of the device
	base  *loaded
	seqID uint64 // on the disk
}

// header writes both copies with the next sequence number, each followed by
// fsync. The copy that is not in use goes first if it is damaged or old, so that
// there is a valid one at any moment; else the primary.
//
// A copy is written in one piece. If it is torn, its checksum is wrong: sequence
// number and checksum are in one sector, and the checksum covers every byte, so
// that no mixture of old and new sectors but the whole passes. libcryptsetup
// writes the binary header without a checksum first for the same end.
func (w *writer) header(doc *jsondoc.Doc, label, subsystem string) error {
	w.seqID++
	order := []*headerCopy{w.base.copies[0], w.base.copies[1]}
	if w.base.damaged() {
		order = []*headerCopy{w.base.other(), w.base.chosen}
	}
	next := &loaded{}
	for _, c := range order {
		n := w.next(c, doc)
		n.bin.setText(offLabel, lenLabel, label)
		n.bin.setText(offSubsystem, lenLabel, subsystem)
		n.bin.seal(n.area)
		if err := w.copy(c, n); err != nil {
			return err
		}
		next.copies[c.index] = n
	}
	next.chosen = next.copies[0]
	w.base = next
	return nil
}

// next makes the new content of a copy from the binary header in use. Its salt
// stays what it was, or is new if it was lost.
func (w *writer) next(c *headerCopy, doc *jsondoc.Doc) *headerCopy {
	n := &headerCopy{index: c.index, intact: true}
	n.bin = append(binaryHeader(nil), w.base.chosen.bin...)
	if c.err == nil {
		copy(n.bin.salt(), c.bin.salt())
	} else {
		rand.Read(n.bin.salt()) // never fails, see crypto/rand
	}
	if c.index == 1 {
		n.at = n.bin.size()
	}
	copy(n.bin[offMagic:], n.wantMagic())
	binary.BigEndian.PutUint64(n.bin[offHdrOffset:], n.at)
	binary.BigEndian.PutUint64(n.bin[offSeqID:], w.seqID)
	n.area = make([]byte, n.bin.size()-binarySize)
	copy(n.area, doc.Bytes())
	n.view = &view{doc: doc}
	return n
}

// copy writes what changes from the old content to the new: up to the longer of
// both texts, or everything if the old one is damaged.
func (w *writer) copy(old, next *headerCopy) error {
	end := uint64(len(next.area))
	if old.err == nil {
		text := uint64(max(old.jsonLen(), next.jsonLen()))
		end = min(roundUp(text, keyslotsAlignment), end)
	}
	b := append(append([]byte(nil), next.bin...), next.area[:end]...)
	if _, err := w.f.WriteAt(b, int64(next.at)); err != nil {
		return err
	}
	return w.f.Sync()
}
