package doctor

import (
	"fmt"
	"strings"

	"luksmith/internal/forecast"
	"luksmith/internal/gpt"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain"
)

// NextBoot is what the TPM does for the volume when one boot entry is started.
type NextBoot struct {
	Entry string // as people know it
	// Older says that the entry sorts behind the one that is running, so that it is
	// not what starts by itself.
	Older bool
	// Opens are the tokens that the values of that boot satisfy.
	Opens []int
	// Closed are the PCRs that keep the others from opening, each with what moves it:
	// "PCR 4 moved by /EFI/Linux/arch.efi (section .initrd)".
	Closed []string
	// Unknown is why it cannot be told of a token, "" if it can of each.
	Unknown string
}

// NextBoots compares tokens with the boots to come. Tokens that somebody else decides
// about, by signatures, are left out.
func NextBoots(f *forecast.Forecast, list []tpm2.BootToken) (boots []NextBoot) {
	for i := range f.Next {
		n := &f.Next[i]
		if n.Other {
			continue
		}
		b := NextBoot{Entry: forecast.Name(&n.Entry), Older: f.Err == nil && gpt.CompareVersions(n.Entry.ID, f.Boot.Entry.ID) < 0}
		for k := range list {
			if list[k].Judged() {
				b.judge(n, &list[k])
			}
		}
		boots = append(boots, b)
	}
	return boots
}

// judge adds what becomes of one token.
func (b *NextBoot) judge(n *forecast.Next, t *tpm2.BootToken) {
	values := map[int][]byte{}
	var moved []string
	for _, pcr := range t.PCRs {
		v := n.Of(pcr)
		if v.Grade == bootchain.Unknown && !v.Same && pcr != tpm2.LatchPCR {
			if b.Unknown == "" {
				b.Unknown = fmt.Sprintf("PCR %d: %s", pcr, v.Reason)
			}
			return
		}
		d := v.AtUnlock()
		values[pcr] = d[:]
		if v.Moved {
			moved = append(moved, fmt.Sprintf("PCR %d moved by %s", pcr, forecast.Moved(v.By)))
		}
	}
	if t.Fits(values) {
		b.Opens = append(b.Opens, t.Token.ID)
	} else if b.Closed == nil {
		b.Closed = moved
	}
}

// next is about the boots to come, for volumes that the TPM opens now.
func (p *Patient) next() (list []Finding) {
	if !p.opensByTPM() {
		return nil
	}
	if err := p.Boot.NextErr; err != nil {
		list = append(list, Finding{Check: "next-unknown", Severity: Warning, About: "next boot", Text: "it cannot be told whether a TPM2 keyslot opens the volume then: " + text(err)})
	}
	for i := range p.Boot.Next {
		if f, bad := p.nextBoot(&p.Boot.Next[i]); bad {
			list = append(list, f)
		}
	}
	return list
}

// opensByTPM reports whether a token of a TPM opens the volume now, or will in some
// boot to come: without one there is nothing to lose.
func (p *Patient) opensByTPM() bool {
	for i := range p.Slots {
		if h, ok := p.Slots[i].Handler.(*tpm2.Handler); !ok || h == nil {
			continue
		}
		for _, t := range p.Slots[i].Tokens {
			switch p.Examined[t.ID].Verdict {
			case tokens.OpensAlone, tokens.OpensWithPerson, tokens.OpensNextBoot:
				return true
			}
			if p.ahead(t.ID) {
				return true
			}
		}
	}
	return false
}

// ahead reports whether a token opens in a boot to come.
func (p *Patient) ahead(token int) bool {
	if p.Boot == nil {
		return false
	}
	for _, n := range p.Boot.Next {
		for _, id := range n.Opens {
			if id == token {
				return true
			}
		}
	}
	return false
}

// nextBoot is about one entry.
func (p *Patient) nextBoot(n *NextBoot) (f Finding, bad bool) {
	f = Finding{About: "next boot of " + n.Entry, Severity: Problem}
	if n.Older {
		f.Severity = Warning
	}
	switch {
	case len(n.Opens) > 0:
		return f, false
	case n.Unknown != "":
		f.Check, f.Severity = "next-unknown", Warning
		f.Text = "it cannot be told whether a TPM2 keyslot opens the volume then: " + n.Unknown
		return f, true
	case n.Closed == nil:
		return f, false // closed now already, or nothing to judge: see tokensNow
	}
	f.Check, f.Command = "next-closed", p.command("follow")
	f.Text = "no TPM2 keyslot opens the volume then: " + strings.Join(n.Closed, "; ")
	return f, true
}
