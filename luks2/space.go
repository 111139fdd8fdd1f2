package luks2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SpaceError says what in the header is full. It matches [ErrNoSpace].
type SpaceError struct {
	What string // "JSON area", [KeyslotsArea], "keyslots", "tokens"
	// Need and Have are bytes of the two areas, of the keyslots area the largest free
	// piece, and objects of the two lists.
	Need, Have uint64
	// Tokens says who takes the JSON area, largest first. Each token has a
	// keyslot of about 300 bytes besides.
	Tokens []TokenSize
}

// KeyslotsArea is SpaceError.What where the key material has no room.
const KeyslotsArea = "keyslots area"

// TokenSize is how much of the JSON area one token takes.
type TokenSize struct {
	ID    int
	Type  string // untrusted
	Bytes int
}

func (e *SpaceError) Error() string {
	if e.What == "keyslots" || e.What == "tokens" {
		return fmt.Sprintf("%v: all %d %s are in use", ErrNoSpace, e.Have, e.What)
	}
	var s string
	if e.What == KeyslotsArea {
		s = fmt.Sprintf("%v: the largest free piece of the %s has %d bytes", ErrNoSpace, e.What, e.Have)
	} else {
		s = fmt.Sprintf("%v: the %s has %d bytes", ErrNoSpace, e.What, e.Have)
	}
	s += fmt.Sprintf(", %d are needed", e.Need)
	var list []string
	for _, t := range e.Tokens {
		list = append(list, fmt.Sprintf("token %d (%q) takes %d", t.ID, t.Type, t.Bytes))
	}
	if len(list) > 0 {
		s += "; " + strings.Join(list, ", ")
	}
	return s
}

// Hint is what makes space.
func (e *SpaceError) Hint() string {
	if e.What == "JSON area" || e.What == "tokens" {
		return "wipe a keyslot with a token that is not needed any more first; see what there is: cryptenroll list DEVICE"
	}
	return "wipe a keyslot that is not needed any more first (`cryptenroll list DEVICE` shows them), or exchange a passphrase in its place: cryptsetup luksChangeKey DEVICE"
}

// Is matches ErrNoSpace.
func (e *SpaceError) Is(target error) bool { return target == ErrNoSpace }

// fits reports a document that is too long for the JSON area.
func (v *view) fits() error {
	s := v.space()
	if s.JSONUsed <= s.JSONTotal {
		return nil
	}
	e := &SpaceError{What: "JSON area", Need: s.JSONUsed, Have: s.JSONTotal}
	for _, o := range v.tokens.objects {
		e.Tokens = append(e.Tokens, TokenSize{o.id, text(o.Value, "type"), len(o.Raw())})
	}
	slices.SortFunc(e.Tokens, func(a, b TokenSize) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.ID, b.ID))
	})
	return e
}

// freeNumber is the lowest number of a section that is not taken.
func (s *section) freeNumber(limit int) (int, error) {
	for id := range limit {
		if _, taken := s.get(id); !taken {
			return id, nil
		}
	}
	return 0, &SpaceError{What: s.name, Need: uint64(limit) + 1, Have: uint64(limit)}
}

// freeArea finds room for a key area: the first gap, as libcryptsetup does. size
// is a multiple of 4096.
func (v *view) freeArea(size uint64) (uint64, error) {
	largest := uint64(0)
	for _, gap := range v.gaps() {
		if gap.length >= size {
			return gap.from, nil
		}
		largest = max(largest, gap.length)
	}
	return 0, &SpaceError{What: KeyslotsArea, Need: size, Have: largest}
}

// gaps are the pieces of the keyslots area that no keyslot has, in their order. Each
// begins where a key area may.
func (v *view) gaps() []extent {
	areas := byPlace(v.areas())
	var list []extent
	from := 2 * v.hdrSize
	for _, a := range append(areas, extent{from: v.areasEnd()}) {
		if a.from > from {
			list = append(list, extent{from: from, length: a.from - from})
		}
		from = max(from, roundUp(a.end(), keyslotsAlignment))
	}
	return list
}

// keyslotsLeft is how many keyslots for a key of that many bytes have a number and an
// area.
func (v *view) keyslotsLeft(keySize int) int {
	if keySize < 1 {
		return 0
	}
	numbers, areas := MaxKeyslots, uint64(0)
	for id := range MaxKeyslots {
		if _, taken := v.keyslots.get(id); taken {
			numbers--
		}
	}
	for _, gap := range v.gaps() {
		areas += gap.length / areaSize(keySize)
	}
	return min(numbers, int(min(areas, MaxKeyslots)))
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }
