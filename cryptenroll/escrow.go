package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"luksmith/internal/cli"
	"luksmith/tokens/recovery/escrow"
)

// escrowFlag is --recovery-escrow=, a pflag.Value that takes public keys of age.
type escrowFlag struct{ to *escrow.Recipients }

// Set implements pflag.Value.
func (f *escrowFlag) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if err := f.to.Add(one); err != nil {
			return err
		}
	}
	return nil
}

// String implements pflag.Value; there is no default.
func (f *escrowFlag) String() string { return "" }

// Type implements pflag.Value.
func (f *escrowFlag) Type() string { return "recipient" }

// refuseHalfEscrow refuses options of an escrow that do not go together.
func (o *options) refuseHalfEscrow() error {
	switch {
	case o.escrowFile != "" && o.escrow.Empty():
		return usagef("--recovery-escrow-file= needs --recovery-escrow=, which says to whom the key is encrypted")
	case o.confirm && !o.escrow.Empty() && o.escrowFile == "":
		return usagef("with --recovery-confirm the key itself goes to the standard output: add --recovery-escrow-file= for the encrypted one")
	}
	return nil
}

// reserveEscrow makes the file of --recovery-escrow-file=.
func (h *handout) reserveEscrow() (err error) {
	if h.maker == nil || h.app.options.escrowFile == "" {
		return nil
	}
	h.escrowFile, err = escrow.Create(h.app.options.escrowFile)
	return err
}

// seal encrypts the new key to those who keep it, and writes the file for it.
func (h *handout) seal(e *enrolled) error {
	o := &h.app.options
	if o.escrow.Empty() {
		return nil
	}
	h.envelope = h.plan.envelope(e.slot, e.result.Label)
	if err := h.envelope.Seal(e.result.Passphrase, &o.escrow, time.Now()); err != nil {
		return err
	}
	if h.escrowFile == nil {
		return nil
	}
	if err := h.escrowFile.Write(h.envelope); err != nil {
		return err
	}
	h.app.msg.Err.Linef("Encrypted to %s: %s.", recipientsText(h.envelope), filepath.Clean(o.escrowFile))
	return nil
}

// envelope is for the recovery key of a keyslot.
func (p *plan) envelope(slot int, label string) *escrow.Envelope {
	host, _ := os.Hostname()
	return &escrow.Envelope{UUID: p.header.UUID, VolumeLabel: p.header.Label, Host: host, Slot: slot, Label: label}
}

// printsEscrow reports whether the envelope goes to standard output.
func (h *handout) printsEscrow() bool {
	return h.maker != nil && !h.app.options.escrow.Empty() && h.app.options.escrowFile == ""
}

// printEnvelope shows the envelope in place of the key.
func (h *handout) printEnvelope() error {
	h.app.msg.Err.Linef("The recovery key of %s goes to the standard output, encrypted to %s.", h.plan.path, recipientsText(h.envelope))
	return h.app.out.JSON(cli.JSONPretty, h.envelope)
}

func recipientsText(e *escrow.Envelope) string {
	if n := len(e.Recipients); n > 1 {
		return fmt.Sprintf("%d recipients", n)
	}
	return e.Recipients[0]
}
