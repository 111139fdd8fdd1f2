package bootchain

import (
	"bytes"
	"time"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/pe"
	"luksmith/tokens/tpm2/bootrecord"
	"luksmith/tokens/tpm2/eventlog"
)

// Record is what is worth keeping of an explained boot: at the next update its files
// may be gone.
func (b *Boot) Record() *bootrecord.Chain {
	c := &bootrecord.Chain{Explained: time.Now().UTC(), PCRs: map[int]bootrecord.Explained{}, Events: b.Events, Config: b.Config,
		Entry: bootrecord.Entry{ID: b.Entry.ID, Title: b.Entry.Title, MachineID: b.Entry.MachineID, Path: b.Entry.Target.Path}}
	for _, p := range b.Parts {
		part := bootrecord.Part{Role: p.Role, Path: p.Path, Kind: string(p.Kind), Version: p.Version, Digest: p.Digest}
		for _, s := range p.Signers {
			part.Signers = append(part.Signers, bootrecord.Signer(s))
		}
		c.Parts = append(c.Parts, part)
	}
	for n, x := range b.PCRs {
		c.PCRs[n] = bootrecord.Explained{Value: x.Value[:], Words: x.Words, Reason: x.Reason}
	}
	return c
}

// Recorded is a boot as it was kept.
func Recorded(c *bootrecord.Chain) *Boot {
	b := &Boot{PCRs: map[int]Explained{}, Events: c.Events, Config: c.Config,
		Entry: Entry{ID: c.Entry.ID, Title: c.Entry.Title, MachineID: c.Entry.MachineID, Target: chain.Target{Path: c.Entry.Path}}}
	for _, p := range c.Parts {
		part := chain.Part{Role: p.Role, Path: p.Path, Kind: chain.Kind(p.Kind), Version: p.Version, Digest: p.Digest}
		for _, s := range p.Signers {
			part.Signers = append(part.Signers, pe.Signer(s))
		}
		b.Parts = append(b.Parts, part)
	}
	for n, x := range c.PCRs {
		e := Explained{Words: x.Words, Reason: x.Reason}
		copy(e.Value[:], x.Value)
		b.PCRs[n] = e
	}
	return b
}

// Explain is [System.Postdict] with the help of what was found earlier in the same
// boot, when the files that it was started from were still there. was is nil when
// nothing was.
func (s *System) Explain(was *Boot) (*Boot, error) {
	now, err := s.Postdict()
	if was == nil || !s.logs(was) {
		return now, err
	}
	if err != nil || was.explained() > now.explained() {
		return was, nil
	}
	return now, nil
}

// logs reports whether the log leads to the values of a boot. What was kept of
// another boot says nothing about this one.
func (s *System) logs(was *Boot) bool {
	for n, x := range was.PCRs {
		if x.Reason == "" && !bytes.Equal(eventlog.Replay(s.Machine.Events, chain.Bank, n), x.Value[:]) {
			return false
		}
	}
	return true
}

func (b *Boot) explained() int {
	n := 0
	for _, x := range b.PCRs {
		if x.Reason == "" {
			n++
		}
	}
	return n
}

// Chosen are the PCRs that a key is bound to if nobody names any: those that cover
// what is started and can be predicted for its kind of chain. A unified kernel image
// is in PCR 4 as a whole; kernel, command line and initrd of an entry are in PCR 4
// and 9; what GRUB runs is in PCR 8 and 9.
func (p *Prediction) Chosen() []int {
	kinds := map[chain.Kind]bool{}
	for _, part := range p.Parts {
		kinds[part.Kind] = true
	}
	switch {
	case kinds[chain.GRUB] && p.knows(4, 7, 8, 9):
		return []int{4, 7, 8, 9}
	case kinds[chain.GRUB]:
		return []int{7}
	case kinds[chain.Stub]:
		return []int{4, 7}
	}
	return []int{4, 7, 9}
}

// Covering are the PCRs that between them get all that an entry starts, without those
// that the firmware writes, and no file twice: that takes time. What is beside a
// unified kernel image, which is in PCR 4 as a whole, is in PCR 12 and 13.
func (p *Prediction) Covering() []int {
	for _, part := range p.Parts {
		if part.Kind == chain.Stub {
			return []int{4, 12, 13}
		}
	}
	return []int{4, 8, 9, 12}
}

func (p *Prediction) knows(pcrs ...int) bool {
	for _, n := range pcrs {
		if p.Of(n).Grade == Unknown {
			return false
		}
	}
	return true
}

// Grade is the least sure of some PCRs, with its reason.
func (p *Prediction) Grade(pcrs []int) (Grade, string) {
	grade, reason := Exact, ""
	for _, n := range pcrs {
		switch v := p.Of(n); {
		case v.Grade == Unknown:
			return Unknown, v.Reason
		case v.Grade == Likely && grade == Exact:
			grade, reason = Likely, v.Reason
		}
	}
	return grade, reason
}
