package fidotest

import (
	"context"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// status is the first byte of an answer, CTAP 2.1 §8.2.
type status byte

const (
	statusOK                   status = 0x00
	statusInvalidCommand       status = 0x01
	statusInvalidParameter     status = 0x02
	statusInvalidLength        status = 0x03
	statusInvalidCBOR          status = 0x12
	statusMissingParameter     status = 0x14
	statusCredentialExcluded   status = 0x19
	statusUnsupportedAlgorithm status = 0x26
	statusKeyStoreFull         status = 0x28
	statusUnsupportedOption    status = 0x2b
	statusInvalidOption        status = 0x2c
	statusKeepaliveCancel      status = 0x2d
	statusNoCredentials        status = 0x2e
	statusPINInvalid           status = 0x31
	statusPINBlocked           status = 0x32
	statusPINAuthInvalid       status = 0x33
	statusPINAuthBlocked       status = 0x34
	statusPINNotSet            status = 0x35
	statusPINRequired          status = 0x36
	statusPINPolicyViolation   status = 0x37
	statusActionTimeout        status = 0x3a
	statusUVBlocked            status = 0x3c
	statusInvalidSubcommand    status = 0x3e
	statusUVInvalid            status = 0x3f

	// statusGone never leaves the key: there is nobody to answer.
	statusGone status = 0xff
)

func (s status) Error() string { return fmt.Sprintf("CTAP2 status %#02x", byte(s)) }

// Commands, CTAP 2.1 §6.
const (
	commandMakeCredential = 0x01
	commandGetAssertion   = 0x02
	commandGetInfo        = 0x04
	commandClientPIN      = 0x06
)

// answers is the encoding of the standard: CTAP 2.1 §8.
var answers = func() cbor.EncMode {
	m, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// Command answers one CTAP2 command: a command byte and its CBOR parameters. The
// answer is a status byte and CBOR. It is nil when the key answers nothing: it was
// unplugged, or is silent and ctx ended.
func (k *Key) Command(ctx context.Context, request []byte) []byte {
	if len(request) == 0 {
		return []byte{byte(statusInvalidLength)}
	}
	command, fault := request[0], k.fault()
	if !k.PluggedIn() {
		return nil
	}
	if fault == Silent || fault == SilentCommands && (command == commandMakeCredential || command == commandGetAssertion) {
		<-ctx.Done()
		return nil
	}
	result, s := k.dispatch(ctx, command, request[1:])
	switch {
	case s == statusGone:
		return nil
	case s != statusOK:
		return []byte{byte(s)}
	case fault == NotCBOR && command != commandGetInfo:
		return []byte{0, 0xff, 0x1c, 0x1c}
	case fault == WrongCBOR && command != commandGetInfo:
		result = map[string]any{"1": []any{nil, 1.5}, "2": map[string]int{}}
	case result == nil:
		return []byte{0}
	}
	b, err := answers.Marshal(result)
	if err != nil {
		panic(err)
	}
	return append([]byte{0}, b...)
}

func (k *Key) dispatch(ctx context.Context, command byte, params []byte) (any, status) {
	switch command {
	case commandGetInfo:
		return k.getInfo(), 0
	case commandMakeCredential:
		return with(params, func(r *createRequest) (any, status) { return k.makeCredential(ctx, r) })
	case commandGetAssertion:
		return with(params, func(r *assertRequest) (any, status) { return k.getAssertion(ctx, r) })
	case commandClientPIN:
		return with(params, func(r *pinRequest) (any, status) { return k.clientPIN(ctx, r) })
	}
	return nil, statusInvalidCommand
}

func with[R any](params []byte, f func(*R) (any, status)) (any, status) {
	var r R
	if err := cbor.Unmarshal(params, &r); err != nil {
		return nil, statusInvalidCBOR
	}
	return f(&r)
}

// getInfo is CTAP 2.1 §6.4.
func (k *Key) getInfo() any {
	k.mu.Lock()
	defer k.mu.Unlock()
	options := map[string]bool{"rk": true, "clientPin": k.pinHash != nil}
	if k.announcesUP {
		options["up"] = true
		options["plat"] = false
	}
	if k.permissions {
		options["pinUvAuthToken"] = true
		options["makeCredUvNotRqd"] = !k.config.AlwaysUV
		options["alwaysUv"] = k.config.AlwaysUV
	}
	if k.config.BuiltInUV {
		options["uv"] = true
	}
	for name, lie := range k.config.OptionLies {
		delete(options, name)
		if lie != nil {
			options[name] = *lie
		}
	}
	extensions := k.extensions
	if k.config.NoHMACSecret {
		extensions = []string{"credProtect"}
	}
	return map[int]any{1: k.versions, 2: extensions, 3: k.config.AAGUID[:], 4: options, 5: 1200, 6: k.protocols}
}
