package bootrecord

import (
	"errors"
	"fmt"
)

// Bounds of a record. Whoever reads one need not trust who wrote it for more than
// its truth.
const (
	maxUnlocks  = 64
	maxFailures = 64
	maxParts    = 32
	maxEvents   = 256
	maxText     = 4096
	maxConfig   = 64 << 10
	pcrCount    = 24
)

// Reasons why a record is not used.
var (
	// ErrFormat: the file is damaged, or none of ours.
	ErrFormat = errors.New("no record of a boot")
	// ErrNewer: a later luksmith wrote it. It is left alone.
	ErrNewer = errors.New("record of a newer luksmith")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, args...))
}

// check is everything that a reader may rely on.
func (b *Boot) check() error {
	if err := checkVersion(b.Version); err != nil {
		return err
	}
	if !isBootID(b.ID) {
		return damaged("%.40q is not the identity of a boot", b.ID)
	}
	if len(b.Unlocks) > maxUnlocks {
		return damaged("%d unlocks", len(b.Unlocks))
	}
	if err := checkTexts(b.Kernel); err != nil {
		return err
	}
	for i := range b.Unlocks {
		if err := b.Unlocks[i].check(); err != nil {
			return err
		}
	}
	return b.Chain.check()
}

func checkVersion(version int) error {
	switch {
	case version > Version:
		return fmt.Errorf("%w: version %d", ErrNewer, version)
	case version < 1:
		return damaged("version %d", version)
	}
	return nil
}

// bankSize is the size of the digests of a bank, 0 for one that luksmith does not know.
func bankSize(bank string) int {
	switch bank {
	case "sha1":
		return 20
	case "sha256":
		return 32
	case "sha384":
		return 48
	case "sha512":
		return 64
	}
	return 0
}

func (u *Unlock) check() error {
	for n, value := range u.PCRs {
		if err := checkPCR(n); err != nil {
			return err
		}
		if len(value) != bankSize(u.Bank) || len(value) == 0 {
			return damaged("PCR %d has %d bytes in bank %.20q", n, len(value), u.Bank)
		}
	}
	if len(u.Failed) > maxFailures {
		return damaged("%d failures", len(u.Failed))
	}
	for _, f := range u.Failed {
		for _, n := range f.Differ {
			if err := checkPCR(n); err != nil {
				return err
			}
		}
		if err := errors.Join(f.check(), checkTexts(f.Error)); err != nil {
			return err
		}
	}
	return errors.Join(checkTexts(u.Volume, u.Name), u.Opened.check())
}

func (w *Way) check() error {
	if w == nil {
		return nil
	}
	for _, n := range []*int{w.Keyslot, w.Token} {
		if n != nil && (*n < 0 || *n > 31) {
			return damaged("keyslot or token %d", *n)
		}
	}
	return checkTexts(w.By, w.Label)
}

func (c *Chain) check() error {
	if c == nil {
		return nil
	}
	if len(c.Parts) > maxParts || len(c.Config) > maxConfig {
		return damaged("%d programs, grub.cfg of %d bytes", len(c.Parts), len(c.Config))
	}
	for _, p := range c.Parts {
		if err := p.check(); err != nil {
			return err
		}
	}
	for n, x := range c.PCRs {
		if err := errors.Join(checkPCR(n), x.check(n)); err != nil {
			return err
		}
	}
	for n, list := range c.Events {
		if len(list) > maxEvents {
			return damaged("%d events", len(list))
		}
		if err := errors.Join(checkPCR(n), checkTexts(list...)); err != nil {
			return err
		}
	}
	return checkTexts(c.Entry.ID, c.Entry.Title, c.Entry.MachineID, c.Entry.Path)
}

func (p *Part) check() error {
	if len(p.Signers) > maxParts {
		return damaged("%d signers", len(p.Signers))
	}
	for _, s := range p.Signers {
		if err := checkTexts(s.Issuer, s.Serial); err != nil {
			return err
		}
	}
	return checkTexts(p.Role, p.Path, p.Kind, p.Version)
}

func (x Explained) check(pcr int) error {
	if x.Reason == "" && len(x.Value) != bankSize("sha256") {
		return damaged("PCR %d is explained and has no value", pcr)
	}
	if len(x.Words) > maxParts {
		return damaged("%d words", len(x.Words))
	}
	return checkTexts(append([]string{x.Reason}, x.Words...)...)
}

func checkPCR(n int) error {
	if n < 0 || n >= pcrCount {
		return damaged("PCR %d", n)
	}
	return nil
}

func checkTexts(texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return damaged("a text of %d bytes", len(t))
		}
	}
	return nil
}

// isBootID reports whether a text is a UUID as the kernel prints boot_id. It becomes
// the name of a file.
func isBootID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i, c := range id {
		hyphen := i == 8 || i == 13 || i == 18 || i == 23
		if hyphen != (c == '-') || !hyphen && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
