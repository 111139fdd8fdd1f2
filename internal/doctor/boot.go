package doctor

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/tokens"
)

// boot is about what attaches the volume when the machine starts.
func (p *Patient) boot() []Finding {
	if p.Boot == nil {
		return nil
	}
	return slices.Concat(p.crypttab(), p.Boot.Initrd, p.next())
}

// crypttab is about the lines of the volume.
func (p *Patient) crypttab() (list []Finding) {
	b := p.Boot
	lines := b.lines()
	about := "/etc/crypttab"
	if b.Crypttab != nil {
		about = b.Crypttab.Path
	}
	f := Finding{About: about}
	switch {
	case len(lines) == 0:
		f.Check, f.Severity, f.Text, f.Command = "crypttab-absent", Warning, "has no line for the volume, so nothing attaches it at boot unless the kernel's command line names it", b.Set
		if option := p.option(); option != "" && b.Set != "" {
			f.Command += " " + option
		}
		return []Finding{f}
	case len(lines) > 1:
		f.Check, f.Severity, f.Text = "crypttab-twice", Problem, fmt.Sprintf("has several lines for the volume, of which the second one fails: lines %d and %d", lines[0].Line, lines[1].Line)
		list = append(list, f)
	}
	said := p.options(lines[0])
	if list = append(list, said...); slices.ContainsFunc(said, func(f Finding) bool { return f.Check == "crypttab-mode" }) {
		return list
	}
	for _, l := range b.Lint {
		if l.Line == lines[0].Line && l.Level != crypttab.Info { // the volume is at hand, and noauto has words of its own
			list = append(list, linted(l))
		}
	}
	return list
}

// lines are those about the volume.
func (b *Boot) lines() (list []*crypttab.Entry) {
	if b.Crypttab == nil {
		return nil
	}
	for i := range b.Crypttab.Entries {
		if e := &b.Crypttab.Entries[i]; e.IsAbout(b.UUID, b.Devices...) {
			list = append(list, e)
		}
	}
	return list
}

// option is the word of crypttab for the first token that opens the volume without a
// person, else for the first token; "" if there is none.
func (p *Patient) option() (word string) {
	for i := range p.Slots {
		s := &p.Slots[i]
		if !s.WayIn() || p.dead(s) {
			continue
		}
		if o := selects(s.Handler); o != "" && (word == "" || p.alone(s)) {
			word = o + "=auto"
		}
	}
	return word
}

// alone reports whether a token of the slot opened the volume without a person.
func (p *Patient) alone(s *tokens.Slot) bool {
	return slices.ContainsFunc(s.Tokens, func(t luks2.Token) bool { return p.Examined[t.ID].Verdict == tokens.OpensAlone })
}

// options is about token types that the line does not name.
func (p *Patient) options(e *crypttab.Entry) (list []Finding) {
	o, _, err := p.Boot.Grammar.ParseOptions(e.Options)
	if err != nil {
		return nil // lint says so
	}
	list, other := p.meant(e, o)
	if other {
		return list
	}
	said := map[string]bool{}
	for i := range p.Slots {
		s := &p.Slots[i]
		word := selects(s.Handler)
		if s.Handler != nil && s.WayIn() && o.KeySlot != crypttab.AnySlot && o.KeySlot != s.ID && slices.Contains(o.Types, s.Handler.Name()) {
			list = append(list, of(s, "crypttab-slot", Warning, fmt.Sprintf("is not tried at boot: the volume's line (%s:%d) has key-slot=%d, which holds for tokens too", e.File, e.Line, o.KeySlot), ""))
			continue
		}
		if word == "" || !s.WayIn() || p.dead(s) || said[word] || slices.Contains(o.Types, s.Handler.Name()) {
			continue
		}
		said[word] = true
		f := of(s, "crypttab-option", Warning, fmt.Sprintf("is not used at boot by systemd: the volume's line (%s:%d) lacks %s=", e.File, e.Line, word),
			p.set(word+"=auto"))
		list = append(list, f)
	}
	return list
}

// meant is about what the options do with the volume as a whole. It reports whether that
// is something else than to unlock it.
func (p *Patient) meant(e *crypttab.Entry, o *crypttab.Options) (list []Finding, other bool) {
	f := Finding{Severity: Problem, About: fmt.Sprintf("%s:%d", e.File, e.Line)}
	switch {
	case o.Swap || o.Temporary != "":
		f.Check, f.Text = "crypttab-mode", "makes a new swap or file system of the volume at each boot: what is on it is lost"
		return []Finding{f}, true
	case o.Mode != crypttab.ModeAny && o.Mode != crypttab.ModeLUKS:
		f.Check, f.Text = "crypttab-mode", fmt.Sprintf("opens the volume as %s, and it is LUKS2", strings.ToLower(string(o.Mode)))
		return []Finding{f}, true
	}
	if p.Boot.HeaderFile != "" && o.Header == "" {
		f.Check, f.Text = "crypttab-header", "lacks header=: the header of the volume is not on it but in "+p.Boot.HeaderFile
		list = append(list, f)
	}
	if o.NoAuto {
		f.Check, f.Severity, f.Text, f.Command = "crypttab-noauto", Note, "has noauto, so that the volume stays closed until somebody asks for it", "cryptsetup-unit attach "+tokens.ShellWord(e.Name)
		list = append(list, f)
	}
	return list, false
}

// set is the command that gives the volume's line an option.
func (p *Patient) set(option string) string {
	if p.Boot.Set == "" {
		return ""
	}
	return p.Boot.Set + " " + option
}

// selects is the option of crypttab that uses the tokens of a type, "" for none.
func selects(h tokens.Handler) string {
	if h == nil {
		return ""
	}
	for _, o := range h.Options() {
		if o.Place&tokens.Crypttab != 0 && o.Action == tokens.SelectUnlock {
			return o.Name
		}
	}
	return ""
}

// linted is a finding of the lint.
func linted(l crypttab.Finding) Finding {
	severity := map[crypttab.Level]Severity{crypttab.Bad: Problem, crypttab.Suspect: Warning, crypttab.Info: Note}[l.Level]
	return Finding{Check: "crypttab-lint", Severity: severity, About: fmt.Sprintf("%s:%d", l.File, l.Line), Text: l.Message()}
}
