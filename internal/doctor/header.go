package doctor

import (
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
)

// header is what is wrong with the header as a whole.
func (p *Patient) header() (list []Finding) {
	for i, c := range p.Header.Copies {
		if c.Err != nil {
			list = append(list, Finding{Check: "copy-damaged", Severity: Warning, About: fmt.Sprintf("header copy %d", i),
				Text: "is damaged (" + text(c.Err) + "); the volume hangs on the other one", Command: p.command("doctor --fix"),
				Fix: func(tx *luks2.Tx) error { tx.Rewrite(); return nil }})
		}
	}
	if a, b := &p.Header.Copies[0], &p.Header.Copies[1]; a.Err == nil && b.Err == nil && a.SeqID != b.SeqID {
		older := 0
		if a.SeqID > b.SeqID {
			older = 1
		}
		list = append(list, Finding{Check: "copy-old", Severity: Warning, About: fmt.Sprintf("header copy %d", older),
			Text: "is older than the other one: if that is damaged, keyslots of before come back", Command: p.command("doctor --fix"),
			Fix: func(tx *luks2.Tx) error { tx.Rewrite(); return nil }})
	}
	if err := p.Header.WriteObstacle(); err != nil {
		list = append(list, Finding{Check: "obstacle", Severity: Warning, About: "header", Text: "cannot be changed: " + text(err)})
	} else if err := p.Header.ActivationObstacle(); err != nil {
		list = append(list, Finding{Check: "obstacle", Severity: Problem, About: "header", Text: "the volume cannot be attached: " + text(err)})
	}
	return list
}

// jsonNeed is what one more enrolment takes of the JSON area at least: the bytes of a
// TPM2 token with its keyslot (docs/formats.md).
const jsonNeed = 1300

// space warns before an update of the system finds the header full.
func (p *Patient) space() (list []Finding) {
	space := p.Header.Space
	if free := space.JSONTotal - min(space.JSONUsed, space.JSONTotal); free < jsonNeed {
		list = append(list, Finding{Check: "space", Severity: Warning, About: "header",
			Text: fmt.Sprintf("has %d bytes left, too few for another token: wipe what is not needed any more", free)})
	}
	if space.KeyslotsLeft == 0 {
		list = append(list, Finding{Check: "space", Severity: Warning, About: "header", Text: "has no room for another keyslot: wipe what is not needed any more"})
	}
	return list
}

// orphans are tokens without a keyslot, those of a type as one finding.
func (p *Patient) orphans() (list []Finding) {
	for _, o := range tokens.OrphansByType(p.Types, p.Header) {
		who, what := o.Text()
		list = append(list, Finding{Check: "orphan", Severity: Note, About: who, Text: what + " and cannot open anything", Command: p.command("doctor --fix"),
			Fix: func(tx *luks2.Tx) error { return tokens.RemoveTokens(tx, p.Types, tx.Header(), o.IDs) }})
	}
	return list
}
