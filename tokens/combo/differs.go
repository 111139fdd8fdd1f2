package combo

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Several = (*Handler)(nil)

// Differs implements [tokens.Matcher]: by the factors and how many of them are needed.
func (h *Handler) Differs(req *tokens.EnrollRequest, t luks2.Token) (string, error) {
	return h.DiffersTogether(req, []luks2.Token{t})
}

// Together implements [tokens.Several]: they have the same k and n, and are no more than
// there are choices of k.
func (h *Handler) Together(list []luks2.Token) bool {
	read, err := readAll(list)
	if err != nil || len(read) == 0 {
		return false
	}
	first := read[0]
	return len(read) <= len(subsets(first.of, first.need)) &&
		!slices.ContainsFunc(read, func(t *token) bool { return t.need != first.need || t.of != first.of })
}

// DiffersTogether implements [tokens.Several]. A factor that stands in several tokens has
// one identity.
func (h *Handler) DiffersTogether(_ *tokens.EnrollRequest, list []luks2.Token) (string, error) {
	read, err := readAll(list)
	if err != nil {
		return "", err
	}
	var names []string
	seen := map[string]bool{}
	wanted := h.factors()
	for _, t := range read {
		if t.of != len(wanted) || t.need != h.need() {
			return fmt.Sprintf("it needs %d of %d factors, not %d of %d", t.need, t.of, h.need(), len(wanted)), nil
		}
		for _, f := range t.factors {
			if id := string(f.identity); !seen[id] {
				seen[id] = true
				names = append(names, f.name)
			}
		}
	}
	if choices := len(subsets(len(wanted), h.need())); len(read) != choices {
		return fmt.Sprintf("%d of its %d keyslots are there", len(read), choices), nil
	}
	if is, want := slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(wanted)); !slices.Equal(is, want) {
		return fmt.Sprintf("its factors are %s, not %s", strings.Join(is, ", "), strings.Join(want, ", ")), nil
	}
	return "", nil
}

func readAll(list []luks2.Token) (read []*token, err error) {
	for _, t := range list {
		one, err := readToken(t.Raw)
		if err != nil {
			return nil, err
		}
		read = append(read, one)
	}
	return read, nil
}
