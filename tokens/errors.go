package tokens

import (
	"errors"
	"fmt"
	"strings"

	"luksmith/luks2"
)

// The sentinels say what kind of failure ended a way to unlock or enrol. Handlers
// wrap them with the device and the cause; commands choose message and exit status
// by them. After each one the next way is tried, except ErrCancelled.
var (
	// ErrNoDevice: the security device is not plugged in, or none of those that
	// are belongs to the token. The user can plug it in.
	ErrNoDevice = errors.New("security device not present")
	// ErrSeveralDevices: "auto" was asked for and more than one fits. The user
	// names one; the error lists them.
	ErrSeveralDevices = errors.New("several security devices are present")
	// ErrWrongPIN: the device refused the PIN. One try is gone.
	ErrWrongPIN = errors.New("wrong PIN")
	// ErrNoPrompt: a PIN is needed, but nobody may be asked and no credential
	// has it.
	ErrNoPrompt = errors.New("a PIN is needed and nobody can be asked")
	// ErrLocked: the device accepts no PIN for now or for good. The message says
	// until when or how to recover. Trying again makes it worse.
	ErrLocked = errors.New("security device is locked")
	// ErrReplug: the device works again once it was unplugged and plugged in. Comes
	// with another sentinel, such as ErrLocked.
	ErrReplug = errors.New("security device has to be plugged in again")
	// ErrPolicy: the TPM is in another state than at enrolment. See PolicyError.
	ErrPolicy = errors.New("TPM policy does not match the present state")
	// ErrOtherDevice: the token was made for another device, such as another TPM.
	ErrOtherDevice = errors.New("token belongs to another security device")
	// ErrWrongKey: the device answered, but the passphrase opens no keyslot of
	// the token: a changed token, another key, or a wrong flag in the header.
	ErrWrongKey = errors.New("token gives a key that opens no keyslot")
	// ErrNotBuilt: support for the type is not installed. The message names the
	// missing program or library.
	ErrNotBuilt = errors.New("support for this token type is not installed")
	// ErrUnsupported: the token is well formed but uses something that this
	// version does not know. It is not tried, because that could cost a PIN try.
	ErrUnsupported = errors.New("token uses a feature unknown to this version")
	// ErrMalformed: a member of the token is missing or has the wrong shape. See
	// FieldError. Nobody can repair it but by enrolling again.
	ErrMalformed = errors.New("token is malformed")
	// ErrTimeout: the user did not touch, or the device did not answer, in time.
	ErrTimeout = errors.New("timed out waiting for the security device")
	// ErrBusy: another process uses the device.
	ErrBusy = errors.New("security device is in use")
	// ErrCancelled: the user gave up (Ctrl-C, Ctrl-D, cancel in an agent).
	ErrCancelled = errors.New("cancelled")
	// ErrSkipped: the person gave a passphrase in place of the PIN, or wants to.
	// Comes with ErrCancelled.
	ErrSkipped = errors.New("left out for the passphrase")
	// ErrDuplicate: the security device is enrolled on the volume already. A safety
	// rule refuses to enrol it once more; the message names the option that allows
	// it.
	ErrDuplicate = errors.New("security device is enrolled already")
	// ErrUsage: an option's value or combination is wrong. Nothing was done.
	ErrUsage = errors.New("invalid option")
)

// TokenError is the failure of one token during Unlock.
type TokenError struct {
	ID   int    // number in the header, -1 without one
	Type string // of the token
	Err  error

	token luks2.Token // what people know it by is in there
	name  string      // of its handler
}

// TokenText is what people know a token of the handler with a name by.
func TokenText(t luks2.Token, name string) string {
	if len(t.Keyslots) == 1 {
		return SlotText(t.Keyslots[0], name, Label(t.Raw))
	}
	return fmt.Sprintf("token %d", t.ID)
}

// FailureOf is the failure of a token of the handler with a name.
func FailureOf(t luks2.Token, name string, err error) *TokenError {
	return &TokenError{ID: t.ID, Type: t.Type, Err: err, token: t, name: name}
}

func (e *TokenError) Error() string {
	if len(e.token.Keyslots) == 1 {
		return fmt.Sprintf("%s: %v", TokenText(e.token, e.name), e.Err)
	}
	if e.ID < 0 {
		return fmt.Sprintf("%s: %v", e.Type, e.Err)
	}
	return fmt.Sprintf("token %d (%s): %v", e.ID, e.Type, e.Err)
}

func (e *TokenError) Unwrap() error { return e.Err }

// FieldError says which member of a token's JSON is wrong. It is ErrMalformed.
type FieldError struct {
	Field  string // member name, such as "tpm2-pcrs"
	Reason string
}

func (e *FieldError) Error() string { return fmt.Sprintf("member %q: %s", e.Field, e.Reason) }

// Is makes errors.Is(err, ErrMalformed) true.
func (e *FieldError) Is(target error) bool { return target == ErrMalformed }

// Tries is how often a device takes a wrong PIN yet, in words: "2 tries left".
func Tries(left int) string {
	if left == 1 {
		return "1 try left"
	}
	return fmt.Sprintf("%d tries left", left)
}

// PolicyError says which PCRs keep a TPM from unsealing. It is ErrPolicy.
type PolicyError struct {
	Bank string
	// PCRs that differ from the values at enrolment, ascending. Empty when the
	// token recorded no values: then only the policy digest is known to differ.
	PCRs []PCRMismatch
	// Cause says in one clause what happened to the machine since the enrolment: "the
	// initrd of debian-6.12.9 changed after it was enrolled"; "" if it is not known.
	Cause string
	// Detail is one sentence with what else is known.
	Detail string
}

// PCRMismatch is one PCR that moved.
type PCRMismatch struct {
	PCR              int
	Name             string // what the PCR measures: "secure-boot-policy"
	Enrolled, Actual []byte
	// Events are the lines of the firmware's log that are new or changed, if a
	// log was recorded at enrolment: `variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG)`.
	Events []string
}

func (e *PolicyError) Error() string {
	var b strings.Builder
	if e.Cause != "" {
		b.WriteString(e.Cause + ": ")
	}
	if len(e.PCRs) == 0 {
		b.WriteString(ErrPolicy.Error())
	}
	for i, p := range e.PCRs {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.text(e.Bank))
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	return b.String()
}

// text is "PCR 11 (kernel-boot) changed: 00000000… -> 90f4b395…" with the events. The
// bank is named if it is not the usual one.
func (p *PCRMismatch) text(bank string) string {
	name := p.Name
	if bank != "sha256" {
		name += ", " + bank
	}
	text := fmt.Sprintf("PCR %d (%s) changed: %s -> %s", p.PCR, name, beginning(p.Enrolled), beginning(p.Actual))
	for _, ev := range p.Events {
		text += ", " + ev
	}
	return text
}

// beginning is enough of a value to tell it from another.
func beginning(value []byte) string {
	if len(value) <= 4 {
		return fmt.Sprintf("%x", value)
	}
	return fmt.Sprintf("%x…", value[:4])
}

// Is makes errors.Is(err, ErrPolicy) true.
func (e *PolicyError) Is(target error) bool { return target == ErrPolicy }

// NeedsSystemdError says that what the options ask for cannot be read by a systemd as
// old as --compat= names. It is ErrUsage.
type NeedsSystemdError struct {
	What   string // "a signed policy"
	Since  int    // the first version that reads it
	Compat int    // the version that was to read it
}

func (e *NeedsSystemdError) Error() string {
	return fmt.Sprintf("%s is known to systemd %d and later, but --compat=%d was asked for", e.What, e.Since, e.Compat)
}

// Is makes errors.Is(err, ErrUsage) true.
func (e *NeedsSystemdError) Is(target error) bool { return target == ErrUsage }

// Usagef is an ErrUsage in its own words: which option is wrong, and what is right.
func Usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// Is makes errors.Is(err, ErrUsage) true.
func (e *usageError) Is(target error) bool { return target == ErrUsage }

// hinted adds the next step to an error without changing its text.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint is read by internal/cli, which prints it below the error.
func (h *hinted) Hint() string { return h.hint }

// WithHint attaches to err the next thing to do, as a sentence or a command line.
func WithHint(err error, hint string) error { return &hinted{err, hint} }
