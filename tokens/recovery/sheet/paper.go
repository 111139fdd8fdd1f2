package sheet

import (
	"slices"
	"strings"
)

// Paper is the size of the page.
type Paper int

const (
	// A4 is 210 by 297 mm.
	A4 Paper = iota
	// Letter is 8.5 by 11 inches, as used in North America.
	Letter
)

// UsualPaper chooses by $PAPERSIZE or the locale, as libpaper does. The
// territories with letter paper are those of Unicode CLDR.
func UsualPaper(getenv func(string) string) Paper {
	if size := getenv("PAPERSIZE"); size != "" {
		if strings.EqualFold(size, "letter") {
			return Letter
		}
		return A4
	}
	for _, name := range []string{"LC_ALL", "LC_PAPER", "LANG"} {
		locale := getenv(name)
		if locale == "" {
			continue
		}
		locale, _, _ = strings.Cut(locale, ".")
		_, territory, _ := strings.Cut(locale, "_")
		territory, _, _ = strings.Cut(territory, "@")
		letter := []string{"BZ", "CA", "CL", "CO", "CR", "GT", "MX", "NI", "PA", "PH", "PR", "SV", "US", "VE"}
		if slices.Contains(letter, territory) {
			return Letter
		}
		return A4
	}
	return A4
}
