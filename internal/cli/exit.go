package cli

import (
	"context"
	"errors"
	"path/filepath"
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
)

var (
	// ErrRefused is wrapped by everything that a safety rule forbids, such as
	// wiping the last usable slot. The message names the overriding option.
	ErrRefused = errors.New("refused")
	// ErrWrongDevice is wrapped when the device is not there, not a block device
	// or image, or no LUKS2 volume.
	ErrWrongDevice = errors.New("wrong device")
)

// exitTable says which status an error has. If several apply, as in joined errors
// of several sources, the first row wins: 11, 10, 5, 4, 3, 8, 7, 2, 6. A refusal
// is a decision of the command and says more than the failures it is based on,
// unless the person gave up meanwhile.
var exitTable = []struct {
	status int
	err    error
}{
	{ExitCancelled, tokens.ErrCancelled},
	{ExitCancelled, context.Canceled},
	{ExitRefused, ErrRefused},
	{ExitRefused, tokens.ErrDuplicate},
	{ExitTimedOut, tokens.ErrTimeout},
	{ExitTimedOut, context.DeadlineExceeded},
	{ExitBusy, tokens.ErrBusy},
	{ExitBusy, unix.EBUSY},
	{ExitBusy, luks2.ErrBusy},
	{ExitWrongDevice, ErrWrongDevice},
	{ExitWrongDevice, luks2.ErrNotLUKS2},
	{ExitNoMemory, unix.ENOMEM},
	{ExitNoMemory, luks2.ErrNoMemory},
	{ExitLockout, tokens.ErrLocked},
	{ExitPolicy, tokens.ErrPolicy},
	{ExitNoKey, tokens.ErrWrongPIN},
	{ExitNoKey, tokens.ErrWrongKey},
	{ExitNoKey, tokens.ErrNoPrompt},
	{ExitNoKey, luks2.ErrNoKey},
	{ExitNoSecurityDevice, tokens.ErrNoDevice},
	{ExitNoSecurityDevice, tokens.ErrOtherDevice},
}

// ExitStatus maps what a command returns to its exit status, 0 for nil.
func ExitStatus(err error) int {
	if err == nil {
		return ExitOK
	}
	for _, row := range exitTable {
		if errors.Is(err, row.err) {
			return row.status
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
func ExitStatusAs(argv0 string, err error) int {
	status := ExitStatus(err)
	if status != ExitOK && CalledAsSystemd(argv0) {
		return ExitFailure
	}
	return status
}
