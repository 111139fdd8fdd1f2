package crypttab

import (
	"slices"
	"strings"
)

// Suggest returns the option that somebody probably meant with a word that is none,
// or "".
func (g Grammar) Suggest(w Word) string {
	name := strings.ToLower(strings.ReplaceAll(strings.TrimFunc(w.Name, notInNames), "_", "-"))
	best, distance := "", min(3, len(name)/3+1)
	for _, row := range g {
		for _, known := range []string{row.Name, row.Alias} {
			if known == "" {
				continue
			}
			if d := editDistance(name, strings.ReplaceAll(strings.ToLower(known), "_", "-")); d < distance {
				spelled := row
				spelled.Name = known
				best, distance = spelled.Spelling(), d
			}
		}
	}
	return best
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
