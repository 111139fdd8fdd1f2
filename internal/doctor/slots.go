package doctor

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

// tokensNow is what the tokens would do now.
func (p *Patient) tokensNow() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		for _, t := range s.Tokens {
			e, ok := p.Examined[t.ID]
			if !ok || !s.Usable() || e.Spare || e.Verdict == tokens.Closed && p.ahead(t.ID) {
				continue
			}
			if f, bad := p.verdict(s, &e); bad {
				list = append(list, f)
			}
		}
	}
	return list
}

// verdict says what is wrong with a token that does not open now.
func (p *Patient) verdict(s *tokens.Slot, e *tokens.Examination) (f Finding, bad bool) {
	command := ""
	if e.Renew != "" {
		command = p.command(e.Renew)
	}
	why := strings.TrimPrefix(text(e.Err), tokens.ErrNoDevice.Error()+": ")
	switch e.Verdict {
	case tokens.Closed:
		return of(s, "token-closed", Problem, "does not open now: "+why, command), true
	case tokens.Dead:
		if command == "" {
			command = p.command(fmt.Sprintf("--wipe-slot=%d", s.ID))
		}
		return of(s, "token-dead", Problem, "can never open again: "+why, command), true
	case tokens.Absent:
		return of(s, "token-absent", Note, "its device is not there now: "+why, ""), true
	case tokens.Unclear:
		return of(s, "token-unclear", Warning, "could not be checked: "+why, ""), true
	}
	return Finding{}, false
}

// text is an error in one line.
func text(err error) string {
	if err == nil {
		return "no reason is known"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// unexamined is why the tokens of a type could not be checked at all.
func (p *Patient) unexamined() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		if s.Handler == nil || !s.Usable() {
			continue
		}
		if err := p.Unexamined[s.Handler.Name()]; err != nil {
			list = append(list, of(s, "device-missing", Warning, "could not be checked: "+text(err), ""))
		}
	}
	return list
}

// altered are tokens that were edited.
func (p *Patient) altered() (list []Finding) {
	for i := range p.Slots {
		if s := &p.Slots[i]; s.Altered {
			list = append(list, of(s, "token-altered", Problem,
				"its token was changed by somebody without the volume's key: it does not demand any more what it was enrolled with",
				p.command(fmt.Sprintf("--wipe-slot=%d", s.ID))))
		}
	}
	return list
}

// spare are tokens that another one took the place of.
func (p *Patient) spare() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		for _, t := range s.Tokens {
			e, ok := p.Examined[t.ID]
			switch {
			case !ok || !e.Spare || p.ahead(t.ID) || e.Verdict == tokens.OpensAlone || e.Verdict == tokens.OpensWithPerson:
			case e.Verdict == tokens.Dead:
				list = append(list, of(s, "token-dead", Warning, "can never open again, and another keyslot took its place", p.command(fmt.Sprintf("--wipe-slot=%d", s.ID))))
			default:
				list = append(list, of(s, "token-spare", Note, "is left from an earlier state of the system; another keyslot took its place", p.command(fmt.Sprintf("--wipe-slot=%d", s.ID))))
			}
		}
	}
	return list
}

// nobody are keyslots that nothing here can open.
func (p *Patient) nobody() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		switch {
		case s.Kind == tokens.KindConflict:
			list = append(list, p.conflict(s))
		case !s.Usable():
			list = append(list, of(s, "slot-unusable", Warning, "nothing here can open it: "+s.Problem, p.command(fmt.Sprintf("--wipe-slot=%d", s.ID))))
		case s.Skipped != "":
			list = append(list, of(s, "slot-skipped", Note, s.Skipped, fmt.Sprintf("cryptsetup config --key-slot %d --priority normal %s", s.ID, p.words())))
		}
	}
	return list
}

// conflict is a keyslot of which nobody can say which token opens it. What is typed may.
func (p *Patient) conflict(s *tokens.Slot) Finding {
	var names []string
	command := ""
	for i, t := range s.Tokens {
		names = append(names, fmt.Sprintf("%d (%s)", t.ID, t.Type))
		if slices.ContainsFunc(s.Tokens[:i], func(o luks2.Token) bool { return string(o.Raw) == string(t.Raw) }) {
			command = fmt.Sprintf("cryptsetup token remove --token-id %d %s", t.ID, p.words())
		}
	}
	last := len(names) - 1
	return of(s, "slot-conflict", Warning, "tokens "+strings.Join(names[:last], ", ")+" and "+names[last]+" name it, so that none of them is used; a passphrase or recovery key of it still opens", command)
}

// pointless are keyslots with a PIN or another condition that one without it stands beside.
func (p *Patient) pointless() (list []Finding) {
	for i := range p.Slots {
		strict := &p.Slots[i]
		for j := range p.Slots {
			lax := &p.Slots[j]
			if strict.Handler == nil || strict.Handler != lax.Handler || !strict.WayIn() || !p.alone(lax) || p.alone(strict) {
				continue
			}
			if more := without(strict.Description.Requires, lax.Description.Requires); more != "" {
				list = append(list, of(strict, "token-pointless", Warning, fmt.Sprintf("what it demands besides (%s) keeps nobody out: %s opens by the same device without it", more, lax.String()),
					p.command(fmt.Sprintf("--wipe-slot=%d", lax.ID))))
				break
			}
		}
	}
	return list
}

// without are the conditions of a list that are not in a shorter one; "" unless all of
// that are in the list.
func without(list, fewer []string) string {
	var more []string
	for _, c := range list {
		if !slices.Contains(fewer, c) {
			more = append(more, c)
		}
	}
	if len(more)+len(fewer) != len(list) {
		return ""
	}
	return strings.Join(more, ", ")
}

// waysIn is about what is left when a device is lost.
func (p *Patient) waysIn() []Finding {
	ways, ignored, person, recovery := 0, 0, false, false
	for i := range p.Slots {
		s := &p.Slots[i]
		if s.Usable() && s.Skipped != "" {
			ignored++
		}
		if !s.WayIn() || p.dead(s) {
			continue
		}
		ways++
		person = person || s.ByPerson()
		recovery = recovery || s.ByPerson() && s.Handler != nil
	}
	enroll := p.command("--recovery-key")
	f := Finding{About: "ways in", Command: enroll}
	switch {
	case ways == 0 && ignored > 0:
		f.Check, f.Severity, f.Text, f.Command = "all-ignored", Problem, "every keyslot that opens the volume has priority ignore, so none is tried unless it is named", ""
	case ways == 0:
		f.Check, f.Severity, f.Text, f.Command = "no-way-in", Problem, "no keyslot can open the volume: what is mapped now is lost at the next reboot unless it is copied", ""
	case !person:
		f.Check, f.Severity, f.Text = "no-secret", Warning, "only devices open the volume: one that breaks, is lost or is cleared takes the data with it"
	case ways == 1:
		f.Check, f.Severity, f.Text = "one-way-in", Warning, "there is one way into the volume: a forgotten passphrase is the end of it"
	case !recovery:
		f.Check, f.Severity, f.Text = "no-recovery-key", Note, "there is no recovery key on paper for the day the passphrase is forgotten"
	default:
		return nil
	}
	return []Finding{f}
}

// dead reports whether all tokens of a slot are known never to open again.
func (p *Patient) dead(s *tokens.Slot) bool {
	for _, t := range s.Tokens {
		if e, ok := p.Examined[t.ID]; ok && e.Verdict == tokens.Dead {
			return true
		}
	}
	return false
}

// costs are keyslots whose key derivation this machine can hardly pay.
func (p *Patient) costs() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		need := uint64(s.KDF.MemoryKiB) << 10
		if p.Memory == 0 || !s.Usable() || s.KDF.Type == luks2.KDFPBKDF2 || need <= p.Memory/2 {
			continue
		}
		convert := fmt.Sprintf("cryptsetup luksConvertKey --key-slot %d --pbkdf-memory %d %s", s.ID, p.Memory>>12, p.words())
		if need > p.Memory {
			list = append(list, of(s, "memory", Problem, fmt.Sprintf("its key derivation needs %d MiB and the machine has %d", need>>20, p.Memory>>20), convert))
			continue
		}
		list = append(list, of(s, "memory", Warning, fmt.Sprintf("its key derivation needs %d of the machine's %d MiB, which an initrd may not have free", need>>20, p.Memory>>20), convert))
	}
	return list
}

// weak is what the token types find weak about their tokens.
func (p *Patient) weak() (list []Finding) {
	for i := range p.Slots {
		s := &p.Slots[i]
		adviser, ok := s.Handler.(tokens.Adviser)
		if !ok || !s.Usable() {
			continue
		}
		for _, t := range s.Tokens {
			for _, a := range adviser.Advise(t) {
				command := ""
				if len(a.Options) > 0 {
					command = p.command(fmt.Sprintf("%s --wipe-slot=%d", strings.Join(a.Options, " "), s.ID))
				}
				list = append(list, of(s, "token-weak", Warning, lower(a.Text), command))
			}
		}
	}
	return list
}

// lower makes a sentence a clause.
func lower(sentence string) string {
	sentence = strings.TrimSuffix(sentence, ".")
	if first, rest, _ := strings.Cut(sentence, " "); strings.ToUpper(first) != first {
		return strings.ToLower(first) + " " + rest
	}
	return sentence
}
