package crypttab

import (
	"slices"
	"strings"
)

// Suggest returns the option that somebody probably meant with a word that is none,
// or "".
func (g Grammar) Suggest(w Word) string {
	name := strings.ToLower(strings.ReplaceAll(strings.TrimFunc(w.Name, notInNames), "_", "-"))
	var best *Option
	distance := min(3, len(name)/3+1)
	for i, row := range g {
		for _, known := range []string{row.Name, row.Alias} {
			if known == "" {
				continue
			}
			if d := editDistance(name, strings.ReplaceAll(strings.ToLower(known), "_", "-")); d < distance {
				spelled := g[i]
				spelled.Name = known
				best, distance = &spelled, d
			}
		}
	}
	if best == nil {
		best = g.alike(name)
	}
	switch {
	case best == nil:
		return ""
	case w.HasValue && w.Value != "" && best.Arg != "":
		return Word{best.Name, w.Value, true}.String()
	}
	return best.Spelling()
}

// alike finds the option whose words are all in the name, or that has all of the name's:
// tpm2-device for tpm2, pkcs11-uri for pkcs11-token-uri. Several make none, unless one of
// them is what asks for a token type.
func (g Grammar) alike(name string) (found *Option) {
	given := nameWords(name)
	if slices.Contains(given, "no") {
		return nil
	}
	several := false
	for i := range g {
		row := &g[i]
		known := nameWords(row.Name)
		switch {
		case !contains(given, known) && !contains(known, given):
		case found == nil || row.Selects && !found.Selects:
			found, several = row, false
		case row.Selects && row.Type == found.Type: // the first one is the usual one
		case row.Selects == found.Selects:
			several = true
		}
	}
	if several {
		return nil
	}
	return found
}

func nameWords(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("-_.", r) })
}

func contains(all, some []string) bool {
	for _, w := range some {
		if !slices.Contains(all, w) {
			return false
		}
	}
	return len(some) > 0
}

func notInNames(r rune) bool { return strings.ContainsRune(spaces+"\"'", r) }

// editDistance counts insertions, deletions, substitutions and swapped neighbours
// (optimal string alignment) between two short words.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, previous := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = slices.Min([]int{previous[j] + 1, row[j-1] + 1, previous[j-1] + cost})
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}
