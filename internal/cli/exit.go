package cli

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"luksmith/luks2"
	"luksmith/tokens"
)

// Exit status of both commands; 0 to 5 as cryptsetup(8) has them.
const (
	ExitOK               = 0
	ExitFailure          = 1 // wrong parameters, and all that is not named below
	ExitNoKey            = 2 // no key fits, wrong PIN
	ExitNoMemory         = 3
	ExitWrongDevice      = 4
	ExitBusy             = 5
	ExitNoSecurityDevice = 6
	ExitPolicy           = 7 // the TPM's policy does not match
	ExitLockout          = 8 // TPM or PIN lockout
	ExitRefused          = 9 // by a safety rule
	ExitTimedOut         = 10
	ExitCancelled        = 11
	ExitWarning          = 12 // doctor found something that should be mended, or predict has no value
	ExitProblem          = 13 // doctor found a way in that does not open
)

var (
	// ErrRefused is wrapped by everything that a safety rule forbids, such as
	// wiping the last usable slot. The message names the overriding option.
	ErrRefused = errors.New("refused")
	// ErrWrongDevice is wrapped when the device is not there, not a block device
	// or image, or no LUKS2 volume.
	ErrWrongDevice = errors.New("wrong device")
)

// precedence orders the statuses for an error that has several, as joined errors
// of several sources do. A refusal is a decision of the command and says more than
// the failures it is based on, unless the person gave up meanwhile.
var precedence = []int{ExitCancelled, ExitRefused, ExitTimedOut, ExitBusy, ExitWrongDevice, ExitNoMemory, ExitLockout, ExitPolicy, ExitNoKey, ExitNoSecurityDevice, ExitProblem, ExitWarning}

// Exit gives errors that match Err a status.
type Exit struct {
	Err    error
	Status int
}

// exits are the errors that both commands know.
func exits() []Exit {
	return []Exit{
		{tokens.ErrCancelled, ExitCancelled},
		{context.Canceled, ExitCancelled},
		{ErrRefused, ExitRefused},
		{tokens.ErrDuplicate, ExitRefused},
		{tokens.ErrTimeout, ExitTimedOut},
		{context.DeadlineExceeded, ExitTimedOut},
		{tokens.ErrBusy, ExitBusy},
		{luks2.ErrBusy, ExitBusy},
		{unix.EBUSY, ExitBusy},
		{ErrWrongDevice, ExitWrongDevice},
		{luks2.ErrNotLUKS2, ExitWrongDevice},
		{luks2.ErrChanged, ExitWrongDevice},
		{luks2.ErrNoMemory, ExitNoMemory},
		{unix.ENOMEM, ExitNoMemory},
		{tokens.ErrLocked, ExitLockout},
		{tokens.ErrPolicy, ExitPolicy},
		{tokens.ErrWrongPIN, ExitNoKey},
		{tokens.ErrWrongKey, ExitNoKey},
		{tokens.ErrNoPrompt, ExitNoKey},
		{luks2.ErrNoKey, ExitNoKey},
		{tokens.ErrNoDevice, ExitNoSecurityDevice},
		{tokens.ErrOtherDevice, ExitNoSecurityDevice},
	}
}

// ExitStatus maps what a command returns to its exit status, 0 for nil. own are
// errors that only this command knows.
func ExitStatus(err error, own ...Exit) int {
	if err == nil {
		return ExitOK
	}
	known := slices.Concat(own, exits())
	for _, status := range precedence {
		for _, e := range known {
			if e.Status == status && errors.Is(err, e.Err) {
				return status
			}
		}
		if malformed := (*luks2.FormatError)(nil); status == ExitWrongDevice && errors.As(err, &malformed) {
			return status
		}
	}
	return ExitFailure
}

// CalledAsSystemd reports whether argv[0] is systemd's name for the command
// (systemd-cryptenroll, systemd-cryptsetup), so that systemd's behaviour is
// expected.
func CalledAsSystemd(argv0 string) bool {
	return strings.HasPrefix(filepath.Base(argv0), "systemd-")
}

// ExitStatusAs is ExitStatus for a command called by the name argv0: systemd's
// programs know 0 and 1 only.
func ExitStatusAs(argv0 string, err error, own ...Exit) int {
	status := ExitStatus(err, own...)
	if status != ExitOK && CalledAsSystemd(argv0) {
		return ExitFailure
	}
	return status
}
