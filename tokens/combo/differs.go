package combo

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

var _ tokens.Matcher = (*Handler)(nil)

// Differs implements [tokens.Matcher]: by the factors and how many of them are needed.
func (h *Handler) Differs(_ *tokens.EnrollRequest, t luks2.Token) (string, error) {
	tok, err := readToken(t.Raw)
	if err != nil {
		return "", err
	}
	wanted := h.factors()
	if tok.of != len(wanted) || tok.need != h.need() {
		return fmt.Sprintf("it needs %d of %d factors, not %d of %d", tok.need, tok.of, h.need(), len(wanted)), nil
	}
	if tok.need < tok.of {
		return "", nil // a token for each choice, with some of the factors
	}
	var names []string
	for _, f := range tok.factors {
		names = append(names, f.name)
	}
	if is, want := slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(wanted)); !slices.Equal(is, want) {
		return fmt.Sprintf("its factors are %s, not %s", strings.Join(is, ", "), strings.Join(want, ", ")), nil
	}
	return "", nil
}
