package bootchain

import (
	"encoding/json"
	"testing"

	"luksmith/tokens/tpm2/bootrecord"
)

// kept is a boot after it went through a file.
func kept(t *testing.T, b *Boot) *Boot {
	t.Helper()
	text, err := json.Marshal(b.Record())
	if err != nil {
		t.Fatal(err)
	}
	c := &bootrecord.Chain{}
	if err := json.Unmarshal(text, c); err != nil {
		t.Fatal(err)
	}
	return Recorded(c)
}

// updated is the machine of one boot with the files of a later one.
func updated(t *testing.T, chain, was, is string) (before, after *System) {
	t.Helper()
	boots := loadChain(t, chain)
	before, after = system(t, boots[was], true), system(t, boots[was], true)
	after.ESP = boots[is].ESP()
	return before, after
}

func TestRecordServesWhenTheFilesOfTheBootAreGone(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		chain, was, is string
		moved          int // PCR
	}{{"uki", "base", "initrd", 4}, {"uki262", "base", "kernel", 4}, {"type1", "base", "initrd", 9}} {
		before, after := updated(t, x.chain, x.was, x.is)
		b, err := before.Postdict()
		if err != nil {
			t.Fatal(err)
		}
		with, err := after.Explain(kept(t, b))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := after.Targets()
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		p, err := after.Predict(with, entries[0])
		if err != nil {
			t.Fatal(err)
		}
		want := loadChain(t, x.chain)[x.is].PCRs
		for _, n := range []int{x.moved, 7} {
			if v := p.Of(n); v.Grade != Exact || string(want[n]) != string(v.Digest[:]) {
				t.Errorf("%v: PCR %d: %+v", x, n, v)
			}
		}
		without, err := after.Explain(nil)
		if err != nil {
			continue // nothing at all is known
		}
		if q, err := after.Predict(without, entries[0]); err == nil && q.Of(x.moved).Grade != Unknown {
			t.Errorf("%v: without the record: %+v", x, q.Of(x.moved))
		}
	}
}

func TestRecordOfAnotherBootIsNotUsed(t *testing.T) {
	t.Parallel()
	boots := loadChain(t, "uki")
	other, err := system(t, boots["kernel"], true).Postdict()
	if err != nil {
		t.Fatal(err)
	}
	s := system(t, boots["base"], true)
	b, err := s.Explain(kept(t, other))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.PCRs[4].Value, boots["base"].PCRs[4]; string(got[:]) != string(want) {
		t.Errorf("PCR 4 is taken to be %x", got)
	}
}

func TestChosenPCRsCoverTheChain(t *testing.T) {
	t.Parallel()
	for chain, want := range map[string]int{"uki": 2, "type1": 3, "grub": 4} {
		s := system(t, loadChain(t, chain)["base"], true)
		b, err := s.Postdict()
		if err != nil {
			t.Fatal(err)
		}
		entries, err := s.Targets()
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Predict(b, entries[0])
		if err != nil {
			t.Fatal(err)
		}
		chosen := p.Chosen()
		if grade, reason := p.Grade(chosen); len(chosen) != want || grade != Exact {
			t.Errorf("%s: PCRs %v, %s: %s", chain, chosen, grade, reason)
		}
	}
}
