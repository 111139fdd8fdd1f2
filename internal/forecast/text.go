package forecast

import (
	"fmt"
	"strconv"
	"strings"

	"luksmith/internal/cli"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
)

// columns is the width of the text: that of the smallest terminal.
const columns = 80

// writer makes lines.
type writer struct{ lines []string }

// line adds a text behind a head. Further lines begin below the text.
func (w *writer) line(head, text string) {
	space := strings.Repeat(" ", cli.Width(head))
	for i, l := range cli.Wrap(cli.Escape(text), columns-len(space)) {
		if i > 0 {
			head = space
		}
		w.lines = append(w.lines, strings.TrimRight(head+l, " "))
	}
}

// Text is the forecast in lines of at most 80 columns, but for words that are longer.
// With events, what explains each event of the log is there too.
func (f *Forecast) Text(events bool) []string {
	w := &writer{}
	f.running(w, events)
	for i := range f.Next {
		w.lines = append(w.lines, "")
		f.next(w, &f.Next[i])
	}
	if len(f.Next) == 0 {
		w.lines = append(w.lines, "", "There is no boot entry.")
	}
	return w.lines
}

// running is about the boot that is running.
func (f *Forecast) running(w *writer, events bool) {
	if f.Err != nil {
		w.line("This boot: ", f.Err.Error()+", so nothing can be said about the next.")
		return
	}
	w.line("This boot: ", Name(&f.Boot.Entry))
	for _, p := range f.Boot.Parts {
		w.line("  ", fmt.Sprintf("%s %s", strings.TrimSpace(string(p.Kind)+" "+p.Version), p.Path))
	}
	var explained []int
	count := 0
	for _, n := range chain.Predictable() {
		if f.shows(n) && f.Boot.PCRs[n].Reason == "" {
			explained = append(explained, n)
			count += f.events(n)
		}
	}
	if len(explained) > 0 {
		w.line("  explained: ", fmt.Sprintf("PCR %s (%d events)", numbers(explained), count))
	}
	for _, n := range chain.Predictable() {
		if f.shows(n) && f.Boot.PCRs[n].Reason != "" {
			w.line("  not explained: ", fmt.Sprintf("PCR %d: %s", n, f.Boot.PCRs[n].Reason))
		}
		if f.shows(n) && events {
			f.accounts(w, n)
		}
	}
}

// accounts lists the events of a PCR.
func (f *Forecast) accounts(w *writer, pcr int) {
	for _, a := range f.Boot.Accounts[pcr] {
		by := a.By
		if by == "" {
			by = "NOTHING EXPLAINS IT"
		}
		w.line(fmt.Sprintf("  %4d  ", pcr), fmt.Sprintf("%s: %s", a.Event, by))
	}
}

// Name is an entry for people.
func Name(e *bootchain.Entry) string {
	text := e.ID
	if e.Title != "" && e.Title != e.ID {
		text += " (" + e.Title + ")"
	}
	return text
}

// next is about one entry.
func (f *Forecast) next(w *writer, n *Next) {
	grade, _ := n.Judge()
	notes := ""
	switch {
	case n.Running:
		notes = ", the entry that is running"
	case n.Other:
		notes = ", of another system"
	}
	w.line("Next boot of ", Name(&n.Entry)+notes)
	w.line(fmt.Sprintf("  %s: ", grade), "PCR "+joined(n.Asked))
	var same []int
	for _, pcr := range f.listed() {
		v := n.Of(pcr)
		switch asked := contains(n.Asked, pcr); {
		case v.Grade == bootchain.Unknown:
			w.line(fmt.Sprintf("  PCR %-2d  unknown  ", pcr), why(v))
		case !v.Moved && !asked && v.Grade == bootchain.Exact:
			same = append(same, pcr)
		default:
			w.line(fmt.Sprintf("  PCR %-2d  %-7s  ", pcr, v.Grade), value(v))
		}
	}
	if len(same) > 0 {
		w.line("  as in this boot: ", "PCR "+numbers(same))
	}
}

// why is the reason of an unknown value.
func why(v bootchain.Value) string {
	if v.Same {
		return v.Reason + "; nothing that goes into it has changed since this boot"
	}
	return v.Reason
}

// value is a predicted value and where it comes from.
func value(v bootchain.Value) string {
	d := v.AtUnlock()
	text := fmt.Sprintf("%x…  as in this boot", d[:8])
	if v.Moved {
		text = fmt.Sprintf("%x…  moved by %s", d[:8], Moved(v.By))
	}
	if len(v.Words) > 0 {
		text += "; with " + strings.Join(v.Words, ", ")
	}
	if v.Reason != "" {
		text += " (" + v.Reason + ")"
	}
	return text
}

// Moved names what moved a value, file by file: "/EFI/Linux/arch.efi (section .linux,
// section .initrd)".
func Moved(by []string) string {
	var files []string
	what := map[string][]string{}
	for _, subject := range by {
		part, file, ok := cutLast(subject, " of /")
		if !ok {
			part, file = "", subject
		}
		if _, known := what[file]; !known {
			files = append(files, file)
		}
		what[file] = append(what[file], part)
	}
	var words []string
	for _, file := range files {
		text := file
		if parts := strings.Join(what[file], ", "); parts != "" {
			text = fmt.Sprintf("/%s (%s)", file, parts)
		}
		words = append(words, text)
	}
	return strings.Join(words, "; ")
}

// cutLast is strings.Cut at the last place.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func contains(list []int, n int) bool {
	for _, m := range list {
		if m == n {
			return true
		}
	}
	return false
}

// joined writes a list as options have it: 4+7.
func joined(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, "+")
}

// numbers writes an ascending list for people: "0-3, 5".
func numbers(list []int) string {
	var words []string
	for i := 0; i < len(list); {
		k := i
		for k+1 < len(list) && list[k+1] == list[k]+1 {
			k++
		}
		switch k - i {
		case 0:
			words = append(words, strconv.Itoa(list[i]))
		case 1:
			words = append(words, strconv.Itoa(list[i]), strconv.Itoa(list[k]))
		default:
			words = append(words, fmt.Sprintf("%d-%d", list[i], list[k]))
		}
		i = k + 1
	}
	return strings.Join(words, ", ")
}
