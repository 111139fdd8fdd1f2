package crypttab

import "strings"

// Nearest returns the one of the known names that somebody probably meant with a name
// that is none of them, or "": the first of those that differ least, by few letters,
// or else the only one that begins with it.
func Nearest(name string, known []string) string {
	best, distance := "", min(3, len(name)/3+1)
	var begin []string
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
		if len(name) > 2 && strings.HasPrefix(k, name) {
			begin = append(begin, k)
		}
	}
	if best == "" && len(begin) == 1 {
		return begin[0]
	}
	return best
}
