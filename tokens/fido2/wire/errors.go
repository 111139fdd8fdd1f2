package wire

import (
	"errors"

	"luksmith/internal/helper"
)

// Codes of errors. The text after the code in an error is the library's own.
const (
	// About reaching the device.
	NoDevice     = "no-device"     // no such path
	NoPermission = "no-permission" // the path may not be opened
	NotFIDO2     = "not-fido2"     // another kind of device, or U2F only
	InUse        = "in-use"        // another program holds it
	Removed      = "removed"       // unplugged while it worked
	Broken       = "broken"        // answers that no key may give, or none
	Cancelled    = "cancelled"     // on our request, or on the key itself

	// Answers of keys, named as in CTAP 2.1 §8.2.
	NoCredentials        = "no-credentials"
	PINRequired          = "pin-required"
	PINInvalid           = "pin-invalid"
	PINBlocked           = "pin-blocked"
	PINAuthBlocked       = "pin-auth-blocked"
	PINNotSet            = "pin-not-set"
	PINPolicy            = "pin-policy"
	UPRequired           = "up-required"
	UVBlocked            = "uv-blocked"
	UVInvalid            = "uv-invalid"
	ActionTimeout        = "action-timeout"
	OperationDenied      = "operation-denied"
	UnsupportedOption    = "unsupported-option"
	UnsupportedAlgorithm = "unsupported-algorithm"
	UnsupportedExtension = "unsupported-extension"
	KeyStoreFull         = "key-store-full"
)

// CodeOf is the code of an error from a backend, "" for any other error.
func CodeOf(err error) string {
	var e *helper.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
