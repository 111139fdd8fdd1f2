package chip

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"luksmith/tokens"
)

// CommandError is a response code of the TPM other than success. errors.Is finds
// the sentinel of the tokens package that says what to do about it, if there is
// one.
type CommandError struct {
	Command string // TPM2_Load
	Code    tpm2.TPMRC
}

// Error names the command, the cause in words and the code.
func (e *CommandError) Error() string {
	if a, ok := adviceFor(e.Code); ok {
		return fmt.Sprintf("%s: %s (TPM code %#x)", e.Command, a.cause, uint32(e.Code))
	}
	return fmt.Sprintf("%s: %v (TPM code %#x)", e.Command, e.Code, uint32(e.Code))
}

// Is compares with sentinels and with go-tpm's codes without their position.
func (e *CommandError) Is(target error) bool {
	a, ok := adviceFor(e.Code)
	return ok && a.sentinel != nil && a.sentinel == target || e.Code.Is(target)
}

// Hint is the next thing to do, or empty.
func (e *CommandError) Hint() string {
	a, _ := adviceFor(e.Code)
	return a.hint
}

// Failed reports whether err is one of the codes, whatever parameter or session
// the TPM blames.
func Failed(err error, codes ...tpm2.TPMRC) bool {
	e, ok := errors.AsType[*CommandError](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if e.Code.Is(code) {
			return true
		}
	}
	return false
}

// advice is what a code means to a person.
type advice struct {
	code     tpm2.TPMRC // without position
	cause    string
	hint     string
	sentinel error
}

const (
	hintFlush  = "use /dev/tpmrm0, where the kernel shares the slots, or free them with tpm2_flushcontext --transient-object --loaded-session --saved-session"
	hintReboot = "switch the machine off and on; if that does not help, clear the TPM in the firmware setup and enrol again"
)

// adviceFor knows the codes of TPM 2.0 Part 2 §6.6 that users meet.
func adviceFor(code tpm2.TPMRC) (advice, bool) {
	for _, a := range []advice{
		{tpm2.TPMRCLockout, "the TPM is locked, by wrong PINs or power cuts", "", tokens.ErrLocked},
		{tpm2.TPMRCSessionMemory, "all session slots of the TPM are taken by other programs", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCSessionHandles, "all session slots of the TPM are taken by other programs", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCObjectMemory, "all object slots of the TPM are taken by other programs", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCObjectHandles, "all object slots of the TPM are taken by other programs", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCTooManyContexts, "the TPM holds too many saved sessions", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCMemory, "the TPM has no memory left", hintFlush, tokens.ErrBusy},
		{tpm2.TPMRCNVSpace, "the TPM has no room for another persistent key", "list what it holds with tpm2_getcap handles-persistent and remove what is not needed with tpm2_evictcontrol", nil},
		{tpm2.TPMRCIntegrity, "the key was sealed by another TPM, or this one was cleared since", "", tokens.ErrOtherDevice},
		{tpm2.TPMRCAuthFail, "the authorization was refused", "", nil},
		{tpm2.TPMRCBadAuth, "the authorization was refused", "", nil},
		{tpm2.TPMRCPolicyFail, "the policy is not satisfied", "", tokens.ErrPolicy},
		{tpm2.TPMRCPCRChanged, "a PCR changed meanwhile", "", tokens.ErrPolicy},
		{tpm2.TPMRCHierarchy, "the owner hierarchy of the TPM is disabled", "enable it in the firmware setup", nil},
		{tpm2.TPMRCFailure, "the TPM is in failure mode", hintReboot, nil},
		{tpm2.TPMRCInitialize, "the TPM was not started", "", nil},
		{tpm2.TPMRCDisabled, "the command is disabled", "enable the TPM in the firmware setup", nil},
		{tpm2.TPMRCCommandCode, "the TPM does not know this command", "", tokens.ErrUnsupported},
		{tpm2.TPMRCCurve, "the TPM does not know this elliptic curve", "", tokens.ErrUnsupported},
		{tpm2.TPMRCNVUnavailable, "the TPM cannot write its memory for now", "try again in a minute", tokens.ErrBusy},
		{tpm2.TPMRCNVRate, "the TPM limits how often its memory is written", "try again in a minute", tokens.ErrBusy},
		{tpm2.TPMRCRetry, "the TPM stays busy", "try again in a minute", tokens.ErrBusy},
		{tpm2.TPMRCTesting, "the TPM stays busy testing itself", "try again in a minute", tokens.ErrBusy},
	} {
		if code.Is(a.code) {
			return a, true
		}
	}
	return advice{}, false
}

// OwnerPassword is the error where the owner hierarchy has an authorization value.
func OwnerPassword() error {
	return tokens.WithHint(errors.New("the owner hierarchy of the TPM has a password"),
		"remove it with tpm2_changeauth -c owner -p PASSWORD, or use a persistent key with --tpm2-seal-key-handle=")
}
