package luks2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"luksmith/luks2/internal/jsondoc"
)

// headerCopy is one of the two copies as it was read.
type headerCopy struct {
	index int    // 0 primary, 1 secondary
	at    uint64 // where it stands
	bin   binaryHeader
	area  []byte // the whole JSON area
	view  *view
	// err says why the copy cannot be used.
	err error
	// intact is true when the binary header and the checksum are right: an
	// unusable intact copy was written so, a damaged one by accident.
	intact bool
}

func (c *headerCopy) wantMagic() string {
	if c.index == 0 {
		return magicPrimary
	}
	return magicSecondary
}

func (c *headerCopy) hasMagic() bool { return c.bin != nil && c.bin.magic() == c.wantMagic() }

func (c *headerCopy) jsonLen() int { return len(c.view.doc.Bytes()) }

// loaded is a header as both copies give it.
type loaded struct {
	copies  [2]*headerCopy
	chosen  *headerCopy
	foreign string // see Header.Foreign
	// whole is what all of it was read from, if both copies are sound and in it.
	whole *beginning

	once    sync.Once // for decoded, see own
	decoded *Header
}

// beginning is what stands first on a device.
type beginning struct {
	bytes []byte // at most firstRead
	size  uint64 // of the device
}

func readBeginning(f storage, size uint64) (*beginning, error) {
	b := make([]byte, firstRead)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &beginning{b[:n], size}, nil
}

func (b *beginning) equal(other *beginning) bool {
	return other != nil && b.size == other.size && bytes.Equal(b.bytes, other.bytes)
}

// firstRead covers both copies of a header of the usual size.
const firstRead = 2 * minHeaderSize

// loader reads the two copies.
type loader struct {
	validator
	*beginning
	f       storage
	primary *headerCopy // once it was read
}

// load reads both copies, validates them and chooses: the higher seqid, the
// primary if they are equal, the one that is left if the other is damaged. It
// writes nothing.
func (x validator) load(f storage, size uint64) (*loaded, error) {
	b, err := readBeginning(f, size)
	if err != nil {
		return nil, err
	}
	return x.judge(f, b)
}

// judge is load with the beginning of the device.
func (x validator) judge(f storage, b *beginning) (*loaded, error) {
	l := loader{validator: x, beginning: b, f: f}
	l.primary = l.readCopy(0, 0)
	if l.primary.hasMagic() && l.primary.bin.version() == 1 {
		return nil, ErrLUKS1
	}
	// A format of the future is not damage, which the next writer would repair.
	if l.primary.err != nil && l.primary.hasMagic() && l.primary.bin.version() != 2 {
		return nil, l.primary.err
	}
	h := &loaded{copies: [2]*headerCopy{l.primary, l.secondary()}}
	if !h.present() {
		if name := foreignSignature(f); name != "" {
			return nil, &HoldsError{name}
		}
		return nil, ErrNotLUKS2
	}
	if err := h.choose(); err != nil {
		return nil, err
	}
	if err := x.checkJSON(headerRules[:], h.chosen.view); err != nil {
		return nil, h.chosen.located(err)
	}
	if h.damaged() {
		if h.foreign = foreignSignature(f); isMember(h.foreign) {
			return nil, &signatureError{h.foreign}
		}
	} else if h.chosen.bin.size() == minHeaderSize {
		h.whole = b
	}
	return h, nil
}

// secondary reads the copy behind an intact primary, or looks for one in all the
// places where it may stand.
func (l *loader) secondary() *headerCopy {
	if l.primary.intact {
		return l.readCopy(1, l.primary.bin.size())
	}
	var best *headerCopy // to report when none is intact
	for _, at := range headerSizes {
		c := l.readCopy(1, at)
		if c.intact {
			return c
		}
		if best == nil || c.hasMagic() && !best.hasMagic() {
			best = c
		}
	}
	return best
}

func (l *loader) readCopy(index int, at uint64) *headerCopy {
	c := &headerCopy{index: index, at: at}
	c.err = l.fill(c)
	return c
}

// fill reads a copy and applies the rules; its error says what is wrong.
func (l *loader) fill(c *headerCopy) error {
	bin, err := l.part(c.at, binarySize)
	if err != nil {
		return c.bad(0, "", "%v", err)
	}
	c.bin = bin
	if err := l.checkCopy(binaryRules[:], c); err != nil {
		return err
	}
	if c.area, err = l.part(c.at+binarySize, c.bin.size()-binarySize); err != nil {
		return c.bad(binarySize, "JSON area", "%v", err)
	}
	if err := l.checkCopy(sumRules[:], c); err != nil {
		return err
	}
	c.intact = true
	if p := l.primary; p != nil && p.err == nil && bytes.Equal(p.area, c.area) {
		c.view = p.view // nothing new to judge
		return nil
	}
	doc, _, err := jsondoc.ParsePrefix(c.area)
	if err != nil {
		return c.located(err)
	}
	c.view = newView(doc, c.bin.size(), l.size)
	if err := l.checkCopy(areaRules[:], c); err != nil {
		return err
	}
	return c.located(l.checkJSON(jsonRules[:], c.view))
}

// part returns a part of the device, from what was read first if it is there.
func (l *loader) part(from, length uint64) ([]byte, error) {
	if from+length <= uint64(len(l.beginning.bytes)) {
		return l.beginning.bytes[from : from+length : from+length], nil
	}
	if from+length > l.size {
		return nil, errors.New("the device ends before it")
	}
	b := make([]byte, length)
	if _, err := l.f.ReadAt(b, int64(from)); err != nil {
		return nil, err
	}
	return b, nil
}

// located turns what the parser or a rule about the document found into a
// FormatError.
func (c *headerCopy) located(err error) error {
	var syntax *jsondoc.SyntaxError
	var f *fault
	switch {
	case errors.As(err, &syntax):
		return c.bad(binarySize+syntax.Offset, "JSON area", "%s", syntax.Reason)
	case errors.As(err, &f):
		return c.bad(binarySize+f.at, f.field, "%s", f.reason)
	}
	return err
}

// present reports whether any copy looks like one of LUKS2.
func (h *loaded) present() bool {
	for _, c := range h.copies {
		if c.intact || c.hasMagic() {
			return true
		}
	}
	return false
}

// choose sets the copy that counts.
func (h *loaded) choose() error {
	primary, secondary := h.copies[0], h.copies[1]
	switch {
	case primary.err != nil && secondary.err != nil:
		return fmt.Errorf("no usable copy of the header: %w; %w", primary.err, secondary.err)
	case primary.err != nil:
		h.chosen = secondary
	case secondary.err != nil || primary.bin.seqID() >= secondary.bin.seqID():
		h.chosen = primary
	default:
		h.chosen = secondary
	}
	return nil
}

// other is the copy that was not chosen.
func (h *loaded) other() *headerCopy { return h.copies[1-h.chosen.index] }

// damaged reports whether the other copy is unusable or older.
func (h *loaded) damaged() bool {
	o := h.other()
	return o.err != nil || o.bin.seqID() != h.chosen.bin.seqID()
}
