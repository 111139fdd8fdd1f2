package eventlog

import (
	"bytes"
	"fmt"
)

// PrefixSize is how many bytes of a digest are kept to recognise an event later.
const PrefixSize = 4

// Prefixes are the beginnings of the digests of one PCR's events, one after the
// other: what is worth keeping where space is short.
func Prefixes(events []Event, bank string, pcr int) []byte {
	var b []byte
	for _, e := range Of(events, pcr) {
		if d := e.Digests[bank]; len(d) >= PrefixSize {
			b = append(b, d[:PrefixSize]...)
		}
	}
	return b
}

// Old is what is known of an earlier boot's events of one PCR: the beginnings of
// their digests, and their names if those were kept too.
type Old struct {
	Prefixes []byte   // PrefixSize bytes each
	Names    []string // nil, or one for each
}

func (o Old) len() int { return len(o.Prefixes) / PrefixSize }

func (o Old) is(i int, digest []byte) bool {
	return bytes.HasPrefix(digest, o.Prefixes[i*PrefixSize:(i+1)*PrefixSize])
}

func (o Old) name(i int) string {
	if i < len(o.Names) {
		return o.Names[i]
	}
	return ""
}

// maxDifferences bounds what Compare lists.
const maxDifferences = 8

// Compare says in one line each which events of a PCR are new, changed or gone
// since the earlier boot: "variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed".
func Compare(old Old, events []Event, bank string, pcr int) []string {
	present := Of(events, pcr)
	matchedOld, matchedNew := match(old, present, bank)
	var gone []int
	for i := range old.len() {
		if !matchedOld[i] {
			gone = append(gone, i)
		}
	}
	var lines []string
	for i, e := range present {
		if matchedNew[i] {
			continue
		}
		// The earlier form of this event is the unmatched one of its name, or
		// without names the next one.
		if k := counterpart(old, gone, e); k >= 0 {
			gone = append(gone[:k:k], gone[k+1:]...)
			lines = append(lines, e.String()+" changed")
		} else {
			lines = append(lines, e.String()+" is new")
		}
	}
	lines = append(lines, describeGone(old, gone)...)
	if len(lines) > maxDifferences {
		lines = append(lines[:maxDifferences-1:maxDifferences-1], fmt.Sprintf("%d more events differ", len(lines)-maxDifferences+1))
	}
	return lines
}

// match pairs equal events of both boots in their order: from the front, from
// the back, and what is left between as it comes.
func match(old Old, present []Event, bank string) (matchedOld, matchedNew []bool) {
	matchedOld, matchedNew = make([]bool, old.len()), make([]bool, len(present))
	lo, hiOld, hiNew := 0, old.len(), len(present)
	for ; lo < min(hiOld, hiNew) && old.is(lo, present[lo].Digests[bank]); lo++ {
		matchedOld[lo], matchedNew[lo] = true, true
	}
	for ; hiOld > lo && hiNew > lo && old.is(hiOld-1, present[hiNew-1].Digests[bank]); hiOld, hiNew = hiOld-1, hiNew-1 {
		matchedOld[hiOld-1], matchedNew[hiNew-1] = true, true
	}
	for i := lo; i < hiNew; i++ {
		for k := lo; k < hiOld; k++ {
			if !matchedOld[k] && old.is(k, present[i].Digests[bank]) {
				matchedOld[k], matchedNew[i] = true, true
				break
			}
		}
	}
	return matchedOld, matchedNew
}

// counterpart is the index in gone of the earlier form of an event, or -1.
func counterpart(old Old, gone []int, e Event) int {
	for k, i := range gone {
		if old.Names == nil || old.name(i) == e.String() {
			return k
		}
	}
	return -1
}

func describeGone(old Old, gone []int) []string {
	var lines []string
	unnamed := 0
	for _, i := range gone {
		if name := old.name(i); name != "" {
			lines = append(lines, clean(name)+" is missing")
		} else {
			unnamed++
		}
	}
	if unnamed > 0 {
		lines = append(lines, fmt.Sprintf("events that are missing: %d", unnamed))
	}
	return lines
}
