package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"

	"luksmith/internal/forecast"
	"luksmith/luks2"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/eventlog"
)

// hasSeparator reports whether the system has systemd-pcrosseparator.service (systemd
// 261): initrds that are made of it may extend os-separator before anything is unlocked.
func hasSeparator(root string) bool {
	return slices.ContainsFunc([]string{"usr/lib/systemd/system", "lib/systemd/system"}, func(dir string) bool {
		_, err := os.Stat(filepath.Join(root, dir, "systemd-pcrosseparator.service"))
		return err == nil
	})
}

// separatorUnsure reports whether an initrd that is new may do otherwise about
// os-separator than the one that runs: the unit came or went since that was made.
func (l *outlook) separatorUnsure() bool { return l.seen.Separator != l.seen.SeparatorBefore }

// otherwise are the values that the PCRs of an entry have if its initrd does otherwise
// about os-separator than the one that runs; nil if that moves none of them.
func otherwise(n *forecast.Next, pcrs []int) map[int][]byte {
	values, _, _ := valuesOf(n, pcrs)
	moved := false
	for pcr := range values {
		if !eventlog.Separated(pcr) {
			continue
		}
		v, words := n.Of(pcr), []string{bootchain.Separator}
		if slices.Contains(v.Words, bootchain.Separator) {
			words = nil
		}
		d := bootchain.After(v.Digest, words)
		values[pcr], moved = d[:], true
	}
	if !moved {
		return nil
	}
	return values
}

// take finds the keyslot for an entry. One that was made when it was plain what the
// initrd does about os-separator is for that, whatever runs now.
func (p *followPlan) take(s *followState, n *forecast.Next) {
	if s.slot = p.slotFor(s.values); s.slot != luks2.AnySlot || isAsBooted(n) {
		return
	}
	if other := otherwise(n, s.pcrs); other != nil {
		if slot := p.slotFor(other); slot != luks2.AnySlot {
			s.slot, s.values, s.events = slot, other, otherEvents(s.events, s.pcrs)
		}
	}
}

// otherwise is a second state for an entry, nil where there is but one.
func (p *followPlan) otherwise(n *forecast.Next, s *followState, l *outlook) *followState {
	if s.values == nil || s.doubtful || s.reason != "" || s.same != nil || isAsBooted(n) {
		return nil
	}
	o := *s
	o.values, o.events = otherwise(n, s.pcrs), otherEvents(s.events, s.pcrs)
	if o.values == nil || slices.ContainsFunc(p.states, func(x *followState) bool { return samePCRs(x.values, o.values) }) {
		return nil
	}
	o.running, o.otherwise, o.slot = false, true, p.slotFor(o.values)
	if o.slot == luks2.AnySlot && (s.slot != luks2.AnySlot || !l.separatorUnsure()) {
		return nil
	}
	return &o
}

// otherEvents are the events that lead to the other values.
func otherEvents(events []eventlog.Event, pcrs []int) []eventlog.Event {
	is := func(e eventlog.Event) bool { return e.Text == bootchain.Separator }
	list := slices.DeleteFunc(slices.Clone(events), is)
	if len(list) < len(events) {
		return list
	}
	digest := sha256.Sum256([]byte(bootchain.Separator))
	for _, pcr := range pcrs {
		if eventlog.Separated(pcr) {
			list = append(list, eventlog.Event{PCR: pcr, Text: bootchain.Separator, Digests: map[string][]byte{chain.Bank: digest[:]}})
		}
	}
	return list
}

// fitsOtherwise reports whether a token is for an entry that has not shown yet what its
// initrd does about os-separator.
func fitsOtherwise(n *forecast.Next, pcrs []int, fits func(map[int][]byte) bool) bool {
	if isAsBooted(n) {
		return false
	}
	values := otherwise(n, pcrs)
	return values != nil && fits(values)
}
