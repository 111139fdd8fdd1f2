package fido2

import (
	"errors"
	"fmt"

	"luksmith/internal/helper"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// notInstalled is tokens.ErrNotBuilt with the text that says what is missing.
type notInstalled struct{ cause error }

func (e *notInstalled) Error() string {
	return fmt.Sprintf("FIDO2 support not installed (%v)", e.cause)
}

// Unwrap makes it both.
func (e *notInstalled) Unwrap() []error { return []error{tokens.ErrNotBuilt, e.cause} }

// meanings are the errors of backends that say more than their code: the sentinel
// that they are, and what to do.
func meanings() map[string]meaning {
	return map[string]meaning{
		wire.NoDevice:        {tokens.ErrNoDevice, "is not plugged in"},
		wire.Removed:         {tokens.ErrNoDevice, "was unplugged"},
		wire.InUse:           {tokens.ErrBusy, "is used by another program"},
		wire.NoPermission:    {nil, "may not be opened"},
		wire.PINInvalid:      {tokens.ErrWrongPIN, "refuses the PIN"},
		wire.PINAuthBlocked:  {tokens.ErrLocked, "takes no PIN after too many wrong ones in a row; unplug it and plug it in again"},
		wire.PINBlocked:      {tokens.ErrLocked, "has blocked its PIN for good; use the recovery key or a passphrase"},
		wire.UVBlocked:       {tokens.ErrLocked, "takes no fingerprint after too many wrong ones; its PIN unblocks it"},
		wire.UVInvalid:       {nil, "did not recognise the user"},
		wire.ActionTimeout:   {tokens.ErrTimeout, "was not touched in time"},
		wire.NotFIDO2:        {nil, "is not a FIDO2 key"},
		wire.Broken:          {nil, "does not answer as a FIDO2 key does"},
		wire.Cancelled:       {nil, "cancelled the request"},
		wire.OperationDenied: {nil, "denied the request"},
		wire.NoCredentials:   {tokens.ErrOtherDevice, "does not hold the credential"},
		wire.PINRequired:     {nil, "demands a PIN"},
		wire.PINNotSet:       {nil, "has no PIN"},
	}
}

type meaning struct {
	sentinel error
	text     string
}

// explain turns an error of the backend into one with a sentinel and the name of
// the key. The code stays readable for [wire.CodeOf].
func explain(err error, name string) error {
	var e *helper.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errSilent):
		return fmt.Errorf("%w: %s %w", tokens.ErrTimeout, name, errSilent)
	case errors.Is(err, helper.ErrNotInstalled):
		return &notInstalled{err}
	case !errors.As(err, &e):
		return fmt.Errorf("%s: %w", name, err)
	}
	m, known := meanings()[e.Code]
	detail := printable(e.Error(), 200) // may hold words of the key
	switch {
	case e.Code == wire.PINAuthBlocked:
		err := &explained{fmt.Sprintf("%v: %s %s", m.sentinel, name, m.text), []error{m.sentinel, tokens.ErrReplug, e}}
		return tokens.WithHint(err, "unplug the key, plug it in again and enter the right PIN, or use a passphrase or the recovery key")
	case !known:
		return fmt.Errorf("%s: %w", name, &helper.Error{Code: e.Code, Message: detail})
	case m.sentinel == nil:
		return &explained{fmt.Sprintf("%s %s (%s)", name, m.text, detail), []error{e}}
	}
	return &explained{fmt.Sprintf("%v: %s %s", m.sentinel, name, m.text), []error{m.sentinel, e}}
}

// explained is an error whose causes are not part of its text: that of a backend
// is technical, and may not be fit for a terminal.
type explained struct {
	text   string
	causes []error
}

func (e *explained) Error() string   { return e.text }
func (e *explained) Unwrap() []error { return e.causes }
