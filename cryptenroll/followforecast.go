package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"unicode"

	"luksmith/internal/forecast"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
	"luksmith/tokens/tpm2/bootrecord"
)

// outlook is what is known of the boot that is running and of those that can come.
type outlook struct {
	*forecast.Forecast
	present map[int][]byte // values that the TPM has now
	seen    *bootrecord.Seen
}

// look looks at the machine: event log, files of the boot partitions, and the PCRs.
// What explains the running boot is kept for when its files are gone.
func (f *following) look(ctx context.Context) (*outlook, error) {
	a := f.app
	present, err := a.tpm2().PresentPCRs(ctx, chain.Predictable())
	if err != nil {
		return nil, err
	}
	fc, err := forecast.Read(forecast.Request{Host: host.Options{Root: a.root, ESP: f.esp, Boot: f.boot, Sync: !a.options.dryRun}, Present: present})
	if errors.Is(err, host.ErrNoLog) || errors.Is(err, chain.ErrNoLog) {
		return nil, tokens.WithHint(err, "nothing can be sealed for the next boot of this machine; after an update: cryptenroll reseal")
	}
	if err != nil {
		return nil, err
	}
	if !a.options.dryRun {
		if err := keepChain(a.root, fc.Boot); err != nil {
			a.msg.WarnError(err)
		}
	}
	return &outlook{Forecast: fc, present: present}, nil
}

// keepChain writes what explains the boot into its record, unless that knows as much.
func keepChain(root string, b *bootchain.Boot) error {
	kept, err := bootrecord.Current(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a machine without /proc keeps no records
	}
	if err != nil || kept.Chain != nil && explained(bootchain.Recorded(kept.Chain)) >= explained(b) {
		return err
	}
	return bootrecord.State(root).Update(kept.ID, func(r *bootrecord.Boot) error {
		r.Chain = b.Record()
		return nil
	})
}

func explained(b *bootchain.Boot) (n int) {
	for _, x := range b.PCRs {
		if x.Reason == "" {
			n++
		}
	}
	return n
}

// running are the values that PCRs had when volumes were unlocked in this boot; nil if
// one of them is not known. PCR 11 to 13 have moved since.
func (l *outlook) running(pcrs []int) map[int][]byte {
	values := map[int][]byte{}
	for _, n := range pcrs {
		if n < 11 || n > 13 {
			values[n] = l.present[n]
		} else if x, ok := l.Boot.PCRs[n]; ok && x.Reason == "" {
			v := bootchain.After(x.Value, x.Words)
			values[n] = v[:]
		}
		if values[n] == nil {
			return nil
		}
	}
	return values
}

// valuesOf are those that PCRs will have when the entry was started; nil when one of
// them cannot be told. What a program does that was not measured is known of the boot
// that is running: an entry that leads to the same again, file by file, has its values.
func valuesOf(n *forecast.Next, pcrs []int) (values map[int][]byte, grade bootchain.Grade, reason string) {
	grade, reason = n.Grade(pcrs)
	values = map[int][]byte{}
	for _, pcr := range pcrs {
		v := n.Of(pcr)
		if v.Grade == bootchain.Unknown && !v.Same {
			return nil, v.Grade, v.Reason
		}
		d := v.AtUnlock()
		values[pcr] = d[:]
	}
	if grade == bootchain.Unknown {
		grade = bootchain.Likely
	}
	return values, grade, reason
}

// labelOf is the name of a keyslot for an entry.
func labelOf(e *bootchain.Entry) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(cmp.Or(e.Title, e.ID), ""))
	for len(text) > tokens.MaxLabel {
		r := []rune(text)
		text = string(r[:len(r)-1])
	}
	return cmp.Or(strings.TrimSpace(text), "boot entry")
}

// predictable says whether values of all these PCRs can be told before a boot.
func predictable(pcrs []int) bool {
	all := chain.Predictable()
	return !slices.ContainsFunc(pcrs, func(n int) bool { return !slices.Contains(all, n) })
}
