package tpm2

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
	"luksmith/tokens/tpm2/policy"
)

// readPCRs gets the values of the literal PCRs that were not given, and chooses
// the bank if none was named.
func (e *enrollment) readPCRs() error {
	e.values, e.present = chip.PCRValues{}, chip.PCRValues{}
	switch {
	case e.t.PCRs == 0 && e.t.SignedPCRs != 0 && e.s.compat >= sinceBank:
		return e.chooseSignedBank()
	case e.t.PCRs == 0:
		return nil
	}
	banks := []chip.Bank{chip.BankSHA256, chip.BankSHA384, chip.BankSHA512, chip.BankSHA1}
	if e.s.compat < sinceBank {
		banks = banks[:1]
	}
	if e.s.pcrs.Bank != 0 {
		banks = []chip.Bank{e.s.pcrs.Bank}
	}
	if err := e.chooseBank(banks); err != nil {
		return err
	}
	e.values = e.s.given(e.t.Bank)
	for i, value := range e.present {
		if e.values[i] == nil {
			e.values[i] = value
			e.noteUnused(i, value)
			e.noteLater(i)
		}
	}
	return nil
}

// chooseBank takes the first bank that the TPM has. If nothing was measured into
// the PCRs in it, a bank that the firmware does measure into is preferred.
func (e *enrollment) chooseBank(banks []chip.Bank) error {
	var firstErr error
	for i, b := range banks {
		values, err := e.c.ReadPCRs(b, e.t.PCRs)
		if e.c.Broken() {
			return err
		}
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		e.t.Bank, e.present = b, values
		if !chip.LooksUsed(values) && len(banks) > i+1 {
			return e.preferUsedBank(banks[i:])
		}
		return nil
	}
	return e.noBank(banks, firstErr)
}

// noBank says which banks there are when none of those that could be used is.
func (e *enrollment) noBank(wanted []chip.Bank, cause error) error {
	has, err := e.c.Banks()
	if err != nil || len(has) == 0 || slices.ContainsFunc(wanted, func(b chip.Bank) bool { return slices.Contains(has, b) }) {
		return fmt.Errorf("reading the PCRs: %w", cause)
	}
	err = tokens.Usagef("the TPM keeps no bank %s; it has %s", bankNames(wanted), bankNames(has))
	if e.s.compat < sinceBank {
		err = tokens.WithHint(err, fmt.Sprintf("systemd reads another bank from %d on: --compat=%[1]d", sinceBank))
	}
	return err
}

func bankNames(list []chip.Bank) string {
	var names []string
	for _, b := range list {
		names = append(names, b.String())
	}
	return strings.Join(names, ", ")
}

// chooseSignedBank takes the bank of PCRs whose values are signed, where no literal
// PCR decides it: the wanted one, else one that there are signatures for, else the
// TPM's first.
func (e *enrollment) chooseSignedBank() error {
	has, err := e.c.Banks()
	if err != nil {
		return err
	}
	if b := e.s.pcrs.Bank; b != 0 {
		if !slices.Contains(has, b) {
			return tokens.Usagef("the TPM keeps no bank %s; it has %s", b, bankNames(has))
		}
		return nil
	}
	if len(has) == 0 {
		return errors.New("the TPM keeps no bank of PCRs")
	}
	e.t.Bank = has[0]
	for _, b := range has {
		if f := e.s.signatures; f != nil && len(f.Candidates(e.t.Key, b, e.t.SignedPCRs, e.t.Ref)) > 0 {
			e.t.Bank = b
			return nil
		}
	}
	return nil
}

// preferUsedBank looks at PCR 0, which every firmware extends, in all banks at
// once. It stays with the first bank if that is used, or none is.
func (e *enrollment) preferUsedBank(banks []chip.Bank) error {
	used, err := e.c.UsedBanks(banks)
	if err != nil || len(used) == 0 || used[0] == banks[0] {
		return err
	}
	values, err := e.c.ReadPCRs(used[0], e.t.PCRs)
	if err == nil && chip.LooksUsed(values) {
		e.t.Bank, e.present = used[0], values
	}
	return err
}

func (e *enrollment) noteUnused(pcr int, value []byte) {
	if chip.Unused(value) && pcr != policy.LatchPCR {
		e.s.note(noteEmpty, "PCR %d (%s) is empty on this machine: it protects nothing.", pcr, e.t.Bank)
	}
}

// noteLater says when user space has measured into a PCR: at unlock, in the next
// boot, some of that has not happened yet. The phase that systemd measures before
// it unlocks is the exception.
func (e *enrollment) noteLater(pcr int) {
	var last string
	for _, ev := range eventlog.Of(e.events, pcr) {
		if ev.Type == 0 && ev.Text != "phase enter-initrd" {
			last = ev.String()
		}
	}
	if last != "" {
		e.s.note(noteUnproven, "PCR %d has been extended since the boot (%s), so it will have another value when the volume is unlocked in the next one; "+
			"give the value with --tpm2-pcrs=%d:%s=HEX, or use a signed policy.", pcr, last, pcr, e.t.Bank)
	}
}
