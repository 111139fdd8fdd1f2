package bootchain

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/eventlog"
)

// Grade is how sure a predicted value is.
type Grade string

const (
	// Exact: the rules explain this PCR in the boot that is running, and everything
	// that differs is of a kind and a version that was measured.
	Exact Grade = "exact"
	// Likely: something about it was not measured, though what is on both sides of
	// it was.
	Likely Grade = "likely"
	// Unknown: no value is given.
	Unknown Grade = "unknown"
)

// Value is what is predicted of one PCR.
type Value struct {
	Grade  Grade
	Reason string // why the grade is not Exact
	// Digest is the value when the kernel has started and user space has extended
	// nothing.
	Digest chain.Digest
	// Words are what user space is expected to extend before a volume is unlocked:
	// what it did in the boot that is running.
	Words []string
	Moved bool // differs from the boot that is running
	// Same says of an unknown value that nothing which goes into it was changed since
	// the boot that is running: it will be Digest if nothing is until then.
	Same bool
	By   []string // what makes it differ: "initrd of /EFI/Linux/arch.efi"
}

// AtUnlock is the value when a volume is unlocked.
func (v Value) AtUnlock() chain.Digest { return After(v.Digest, v.Words) }

// Prediction is what booting an entry gives. Files are hashed when a value is asked for
// that they belong to, each once.
type Prediction struct {
	Entry Entry
	Parts []chain.Part

	values  map[int]Value // those that were asked for
	predict func(pcr int) Value
	run     *chain.Run
}

// Of is what is predicted of a PCR.
func (p *Prediction) Of(pcr int) Value {
	v, ok := p.values[pcr]
	if !ok {
		v = p.predict(pcr)
		p.values[pcr] = v
	}
	return v
}

// All are the values of all PCRs that a boot chain writes.
func (p *Prediction) All() map[int]Value {
	for _, n := range chain.Predictable() {
		p.Of(n)
	}
	return p.values
}

// Refuse makes every value unknown.
func (p *Prediction) Refuse(reason string) {
	p.predict = func(int) Value { return unknown(reason) }
}

// Events are what leads to the values of some PCRs when a volume is unlocked, to find
// out later what came differently.
func (p *Prediction) Events(pcrs []int) (list []eventlog.Event) {
	for _, n := range pcrs {
		for _, m := range chain.Of(p.run.Measurements, n) {
			if d, err := m.Digest(); err == nil {
				list = append(list, event(n, m.Subject(), d))
			}
		}
		for _, w := range p.Of(n).Words {
			list = append(list, event(n, w, sha256.Sum256([]byte(w))))
		}
	}
	return list
}

func event(pcr int, text string, d chain.Digest) eventlog.Event {
	return eventlog.Event{PCR: pcr, Text: text, Digests: map[string][]byte{chain.Bank: d[:]}}
}

// Predict follows the boot of an entry from the files as they are. b is the boot
// that is running, explained when its files were still there.
func (s *System) Predict(b *Boot, e Entry) (*Prediction, error) {
	var grub *chain.GRUBBoot
	if b.Config != nil {
		grub = &chain.GRUBBoot{Config: b.Config}
	}
	run, err := chain.Simulate(s.Machine, s.ESP, e.Target, grub)
	if err != nil {
		return nil, err
	}
	doubts := compareParts(b.Parts, run.Parts, s.Machine.SecureBoot())
	predict := func(pcr int) Value { return s.predictPCR(b, run, doubts, pcr) }
	p := &Prediction{Entry: e, Parts: run.Parts, values: map[int]Value{}, predict: predict, run: run}
	if other := chain.StartedFirst(s.Machine, s.ESP); other != "" {
		p.Refuse("the next boot starts " + other + ", and this one was started by another boot option")
	}
	return p, nil
}

func (s *System) predictPCR(b *Boot, run *chain.Run, doubts map[int]string, pcr int) Value {
	was, ok := b.PCRs[pcr]
	switch {
	case !slices.Contains(chain.Predictable(), pcr):
		return unknown("the boot chain does not decide it")
	case !ok:
		return unknown("the boot that is running was not looked at")
	case run.Unknown[pcr] != "":
		return unknown(run.Unknown[pcr])
	case was.Reason != "" && was.Reason != run.Unmeasured[pcr]:
		return unknown("in the boot that is running: " + was.Reason)
	case doubts[pcr] != "":
		return unknown(doubts[pcr])
	case run.Unmeasured[pcr] != "":
		return s.unmeasured(b, run, pcr)
	}
	value, err := runValue(s.Machine, run, pcr)
	if err != nil {
		return unknown(err.Error())
	}
	v := Value{Grade: Exact, Digest: value, Words: was.Words, Moved: value != was.Value}
	if r := run.Likely[pcr]; r != "" {
		v.Grade, v.Reason = Likely, r
	}
	if v.Moved {
		v.By = moved(s.Machine.Events, run, pcr)
	}
	return v
}

// unmeasured is a PCR that a program writes which nobody compared with a TPM. No value
// is predicted; but where that program is the one that was started, byte for byte, and
// all that goes into the PCR is as it was, it is the same as in this boot.
func (s *System) unmeasured(b *Boot, run *chain.Run, pcr int) Value {
	v, was := unknown(run.Unmeasured[pcr]), b.PCRs[pcr]
	if was.Reason != v.Reason {
		return v
	}
	for _, p := range run.Parts {
		old, ok := partOf(b.Parts, p.Role)
		if changed := !ok || !bytes.Equal(old.Digest, p.Digest); changed && (p.Role != "entry" || !p.Measured()) {
			return v
		}
	}
	if value, err := runValue(s.Machine, run, pcr); err == nil && value == was.Value {
		v.Same, v.Digest, v.Words = true, was.Value, was.Words
	}
	return v
}

func unknown(reason string) Value { return Value{Grade: Unknown, Reason: reason} }

// moved names the measurements that the running boot does not have, and the events
// that will not be measured again.
func moved(events []eventlog.Event, run *chain.Run, pcr int) []string {
	was, will := eventlog.Of(events, pcr), map[chain.Digest]bool{}
	var list []string
	for _, m := range chain.Of(run.Measurements, pcr) {
		d, err := m.Digest()
		if err != nil {
			continue
		}
		will[d] = true
		is := func(e eventlog.Event) bool { return bytes.Equal(e.Digests[chain.Bank], d[:]) }
		if !slices.ContainsFunc(was, is) && !slices.Contains(list, m.Subject()) {
			list = append(list, m.Subject())
		}
	}
	if list != nil {
		return list
	}
	for _, e := range was {
		if d := e.Digests[chain.Bank]; len(d) == len(chain.Digest{}) && !will[chain.Digest(d)] {
			list = append(list, e.String()+" which is not measured any more")
		}
	}
	if list == nil {
		list = []string{"the number or order of what is measured"}
	}
	return list
}

// compareParts says which PCRs cannot be told because the programs differ from those
// of the boot that is running in a way that the files do not show.
func compareParts(was, is []chain.Part, secureBoot bool) map[int]string {
	doubts := map[int]string{}
	doubt := func(reason string, pcrs ...int) {
		for _, pcr := range pcrs {
			if doubts[pcr] == "" {
				doubts[pcr] = reason
			}
		}
	}
	for _, p := range is {
		old, ok := partOf(was, p.Role)
		if p.Role == "loader" || p.Role == "second" {
			if !ok || old.Kind != p.Kind {
				doubt("the loader is another program: "+string(p.Kind), 4, 5, 7, 8, 9, 11, 12, 13, 14)
			}
		}
		if !ok || !bytes.Equal(old.Digest, p.Digest) {
			reason, pcrs := changed(p.Kind)
			doubt(reason, pcrs...)
		}
		if secureBoot && !sameSigner(was, p) {
			doubt(p.Path+" is not signed by the certificate that signed what it replaces", 7)
			if p.Kind == chain.Addon { // without it the boot goes on
				doubt(p.Path+" may not be accepted", 4, 9, 12)
			}
		}
	}
	if len(was) > 0 && len(is) > 0 && loaders(was) != loaders(is) {
		doubt("another number of loaders is started", 4, 5, 7, 8, 9, 11, 12, 13, 14)
	}
	return doubts
}

// changed is what cannot be told once a program of a kind is another one.
func changed(k chain.Kind) (reason string, pcrs []int) {
	switch k {
	case chain.Shim:
		// shim/shim: PCR 14 moved, by the same version of shim.
		return "the shim changed, and its lists and certificates are not known", []int{7, 14}
	case chain.GRUB:
		// grub/grub206: PCR 4, 8 and 9 were wrong at the first try.
		return "GRUB changed, and which commands and files it measures is not known", []int{4, 8, 9}
	}
	return "", nil
}

func loaders(parts []chain.Part) int {
	n := 0
	for _, p := range parts {
		if p.Role == "loader" || p.Role == "second" {
			n++
		}
	}
	return n
}

func partOf(parts []chain.Part, role string) (chain.Part, bool) {
	for _, p := range parts {
		if p.Role == role {
			return p, true
		}
	}
	return chain.Part{}, false
}

// sameSigner reports whether a program is let in by the entry of the signature
// database that let in the one with its role. An addon needs the signer of the image
// that it goes with.
func sameSigner(was []chain.Part, p chain.Part) bool {
	role := p.Role
	if p.Kind == chain.Addon {
		role = "entry"
	}
	old, ok := partOf(was, role)
	return ok && len(p.Signers) > 0 && slices.Equal(old.Signers, p.Signers)
}
