package luks2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SpaceError says what in the header is full. It matches [ErrNoSpace].
type SpaceError struct {
	What       string // "JSON area", "keyslots area", "keyslots", "tokens"
	Need, Have uint64 // bytes in the two areas, objects in the two lists
	// Tokens says who takes the JSON area, largest first. Each token has a
	// keyslot of about 300 bytes besides.
	Tokens []TokenSize
}

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
	s := fmt.Sprintf("%v: the %s has %d bytes, %d are needed", ErrNoSpace, e.What, e.Have, e.Need)
	var list []string
	for _, t := range e.Tokens {
		list = append(list, fmt.Sprintf("token %d (%q) takes %d", t.ID, t.Type, t.Bytes))
	}
	if len(list) > 0 {
		s += "; " + strings.Join(list, ", ")
	}
	return s
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
	areas := v.areas()
	byPlace(areas)
	from, largest := 2*v.hdrSize, uint64(0)
	for _, a := range append(areas, extent{from: v.areasEnd()}) {
		if a.from >= from {
			largest = max(largest, a.from-from)
		}
		if a.from >= from && a.from-from >= size {
			return from, nil
		}
		from = max(from, roundUp(a.end(), keyslotsAlignment))
	}
	return 0, &SpaceError{What: "keyslots area", Need: size, Have: largest}
}

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }
