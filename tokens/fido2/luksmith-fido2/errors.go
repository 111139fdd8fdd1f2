//go:build cgo

package main

import (
	"errors"

	libfido2 "github.com/keys-pub/go-libfido2"

	"luksmith/internal/helper"
	"luksmith/tokens/fido2/wire"
)

// Codes that go-libfido2 has no variable for: CTAP 2.1 §8.2 and fido/err.h.
var numbers = map[int]string{
	0x11: wire.Broken, // CBOR_UNEXPECTED_TYPE, as the library's judgement of an answer
	0x12: wire.Broken, // INVALID_CBOR
	0x16: wire.UnsupportedExtension,
	0x26: wire.UnsupportedAlgorithm,
	0x28: wire.KeyStoreFull,
	0x2f: wire.ActionTimeout, // USER_ACTION_TIMEOUT
	0x32: wire.PINBlocked,
	0x3c: wire.UVBlocked,
	0x3f: wire.UVInvalid,
}

// errorOf translates an error of the library.
func errorOf(err error) error {
	code := "failed"
	var numbered libfido2.Error
	if errors.As(err, &numbered) && numbers[numbered.Code] != "" {
		code = numbers[numbered.Code]
	}
	for _, known := range []struct {
		err  error
		code string
	}{
		{libfido2.ErrNotFIDO2, wire.NotFIDO2},
		{libfido2.ErrNoCredentials, wire.NoCredentials},
		{libfido2.ErrInvalidCredential, wire.NoCredentials},
		{libfido2.ErrPinRequired, wire.PINRequired},
		{libfido2.ErrPinInvalid, wire.PINInvalid},
		{libfido2.ErrPinAuthBlocked, wire.PINAuthBlocked},
		{libfido2.ErrPinNotSet, wire.PINNotSet},
		{libfido2.ErrPinPolicyViolation, wire.PINPolicy},
		{libfido2.ErrUPRequired, wire.UPRequired},
		{libfido2.ErrActionTimeout, wire.ActionTimeout},
		{libfido2.ErrOperationDenied, wire.OperationDenied},
		{libfido2.ErrUnsupportedOption, wire.UnsupportedOption},
		{libfido2.ErrInvalidOption, wire.UnsupportedOption},
		{libfido2.ErrKeepaliveCancel, wire.Cancelled},
		// What a device can cause by not being, or not behaving like, a key.
		{libfido2.ErrTX, wire.Broken},
		{libfido2.ErrRX, wire.Broken},
		{libfido2.ErrRXNotCBOR, wire.Broken},
		{libfido2.ErrRXInvalidCBOR, wire.Broken},
		{libfido2.ErrInternal, wire.Broken},
		{libfido2.ErrInvalidCommand, wire.Broken},
		{libfido2.ErrInvalidLength, wire.Broken},
	} {
		if errors.Is(err, known.err) {
			code = known.code
		}
	}
	return &helper.Error{Code: code, Message: err.Error()}
}
