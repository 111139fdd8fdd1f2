package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"

	"luksmith/internal/forecast"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootrecord"
)

// compare holds the entries against those that were seen last, see [bootrecord.Seen].
func (f *following) compare(l *outlook) error {
	root := f.app.root
	was, err := bootrecord.ReadSeen(root)
	if errors.Is(err, bootrecord.ErrFormat) {
		// Nothing can be told apart, so everything but what runs is in doubt.
		f.app.msg.WarnError(err)
		was = &bootrecord.Seen{Separator: hasSeparator(root)}
	} else if err != nil {
		return err
	}
	l.seen = &bootrecord.Seen{Places: 1, Separator: hasSeparator(root)}
	if l.Host.Boot != "" {
		l.seen.Places = 2
	}
	if l.seen.Boot, err = bootrecord.CurrentID(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i := range l.Next {
		l.seen.Images = append(l.seen.Images, bootrecord.Image{Entry: l.Next[i].Entry.ID, Digest: imageOf(&l.Next[i])})
	}
	l.seen.Look(was)
	for i := range l.Next {
		if isAsBooted(&l.Next[i]) {
			l.seen.Images[i].Doubtful = false
		}
	}
	if f.acceptChanged {
		l.seen.Accept()
	}
	if f.app.options.dryRun {
		return nil
	}
	return l.seen.Write(root)
}

// imageOf is a digest over what starting an entry measures.
func imageOf(n *forecast.Next) []byte {
	h := sha256.New()
	for _, pcr := range n.Covering() {
		v := n.Of(pcr)
		if v.Grade == bootchain.Unknown && !v.Same {
			fmt.Fprintf(h, "%d unknown\n", pcr)
			continue
		}
		fmt.Fprintf(h, "%d %x\n", pcr, v.Digest)
	}
	return h.Sum(nil)
}

// isAsBooted reports whether the entry has the files that the running boot was started
// from.
func isAsBooted(n *forecast.Next) bool {
	if !n.Running {
		return false
	}
	for _, pcr := range n.Covering() {
		if v := n.Of(pcr); v.Moved || v.Grade == bootchain.Unknown && !v.Same {
			return false
		}
	}
	return true
}

// errDoubtful is why an entry gets no key.
const errDoubtful = "its files changed while this system did not run"

// doubt takes an entry off the plan that somebody with the disk in their hands may have
// written.
func (s *followState) doubt(n *forecast.Next, l *outlook) {
	s.doubtful = l.seen.Doubtful(imageOf(n))
	if s.doubtful && !s.covered() {
		s.reason = errDoubtful
	}
}

// warnDoubtful says what to do about entries in doubt.
func (f *following) warnDoubtful(plans []*followPlan) {
	for _, p := range plans {
		for _, s := range p.states {
			if !s.doubtful || s.covered() {
				continue
			}
			f.app.msg.WarnError(tokens.WithHint(errors.New("boot entries changed while this system did not run: somebody who had the disk can have written them"),
				"look at the entries; if you changed them yourself: cryptenroll follow --accept-changed"))
			return
		}
	}
}
