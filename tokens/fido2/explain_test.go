package fido2

import (
	"errors"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	for code, tt := range map[string]struct {
		is   error
		text string
	}{
		wire.NoDevice:       {tokens.ErrNoDevice, "security device not present: Key is not plugged in"},
		wire.Removed:        {tokens.ErrNoDevice, "security device not present: Key was unplugged"},
		wire.InUse:          {tokens.ErrBusy, "security device is in use: Key is used by another program"},
		wire.PINInvalid:     {tokens.ErrWrongPIN, "wrong PIN: Key refuses the PIN"},
		wire.PINAuthBlocked: {tokens.ErrLocked, "unplug it and plug it in again"},
		wire.PINBlocked:     {tokens.ErrLocked, "use the recovery key or a passphrase"},
		wire.UVBlocked:      {tokens.ErrLocked, "its PIN unblocks it"},
		wire.ActionTimeout:  {tokens.ErrTimeout, "Key was not touched in time"},
		wire.NoPermission:   {nil, "Key may not be opened (open /dev/x: permission denied)"},
		wire.NotFIDO2:       {nil, "Key is not a FIDO2 key (open /dev/x: permission denied)"},
		"failed":            {nil, "Key: open /dev/x: permission denied"},
	} {
		err := explain(&helper.Error{Code: code, Message: "open /dev/x: permission\x1b denied"}, "Key")
		if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || wire.CodeOf(err) != code {
			t.Errorf("%s: %v, want %q", code, err, tt.text)
		}
	}
	if explain(nil, "Key") != nil {
		t.Error("no error is explained")
	}
}
