package main

import (
	"context"
	"fmt"

	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// latchPCR is systemd's PCR for the identity of the system.
const latchPCR = 15

// measureFunc extends a PCR by an identity of the volume key.
type measureFunc func(ctx context.Context, h *tpm2.Handler, req *tpm2.MeasureRequest) (*tpm2.Measured, error)

// identify compares the volume key with fixate-volume-key= and measures it. A UUID
// proves nothing: whoever exchanges a volume copies it.
func (at *attempt) identify(ctx context.Context, key *contest.Found) error {
	at.report.Identity = tpm2.FixateValue(key.Key, at.job.entry.Name, at.volume.uuid)
	if want := at.job.options.FixateVolumeKey; want != "" && want != at.report.Identity {
		return fmt.Errorf("%w: the volume key is not the one of fixate-volume-key=: this is another volume, or its key was changed (its identity is %s)",
			cli.ErrRefused, at.report.Identity)
	}
	return at.measureKey(ctx, key.Key)
}

// measureKey extends a PCR before the mapping exists, and fails closed: nothing that
// the volume holds can run, or unseal other keys, before it is on record.
//
// Unlike systemd, which measures after activation, ignores errors, and leaves it out
// where the boot loader measured nothing.
func (at *attempt) measureKey(ctx context.Context, key secret.Secret) error {
	if at.job.options.MeasurePCR < 0 && !at.job.options.Latch {
		return nil
	}
	h := &tpm2.Handler{}
	if err := at.job.configure(h); err != nil {
		return err
	}
	h.Measure = tpm2.Measurement{PCR: at.job.options.MeasurePCR, Banks: at.job.options.MeasureBanks}
	if h.Measure.PCR < 0 {
		h.Measure.PCR = latchPCR
	}
	if err := at.as.latch.wait(ctx); err != nil {
		return err
	}
	defer at.report.stage("measure")()
	req := &tpm2.MeasureRequest{VolumeKey: key, Name: at.job.entry.Name, UUID: at.volume.uuid}
	var done *tpm2.Measured
	// A key file can be faster than the driver of the chip.
	chip := awaited{what: "TPM", subsystems: h.Subsystems(), missing: tokens.ErrNoDevice, limit: at.job.options.TokenTimeout}
	err := at.as.devices.until(ctx, chip, func() (err error) {
		done, err = at.as.measure(ctx, h, req)
		return err
	})
	if err != nil {
		return &measureError{err, at.job.openCommand()}
	}
	if done.LogErr != nil {
		at.warn(fmt.Sprintf("writing the measurement into the log: %v", done.LogErr))
	}
	return nil
}

// measureError is about a volume whose key was right and that stays closed all the
// same. Its hint is the way in for whoever has to repair the machine.
type measureError struct {
	err     error
	command string
}

func (e *measureError) Error() string {
	return fmt.Sprintf("the key was right but could not be measured, so the volume is not attached: %v", e.err)
}

func (e *measureError) Unwrap() error { return e.err }

// Hint is printed below the error.
func (e *measureError) Hint() string {
	return "to get at the data once, without the measurement: " + e.command
}
