package tokens

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&TokenError{ID: 3, Type: "systemd-tpm2", Err: ErrNoDevice}, "token 3 (systemd-tpm2): security device not present"},
		{&TokenError{ID: -1, Type: "systemd-fido2", Err: ErrTimeout}, "systemd-fido2: timed out waiting for the security device"},
		{&FieldError{"tpm2-pcrs", "is missing"}, `member "tpm2-pcrs": is missing`},
		{&FieldError{"a\x1b\u202e", "is null"}, `member "a\x1b\u202e": is null`},
		{&PolicyError{}, "TPM policy does not match the present state"},
		{&PolicyError{Detail: "no event log"}, "TPM policy does not match the present state: no event log"},
		{&PolicyError{Bank: "sha256", Detail: "dbx was updated", PCRs: []PCRMismatch{
			{PCR: 7, Name: "secure-boot-policy", Enrolled: []byte{1}, Actual: []byte{2}, Events: []string{"variable dbx"}},
			{PCR: 11, Name: "kernel-boot", Enrolled: []byte{0xab}, Actual: []byte{0xcd}},
		}}, "PCR 7 (secure-boot-policy) changed: 01 -> 02, variable dbx; PCR 11 (kernel-boot) changed: ab -> cd: dbx was updated"},
		{WithHint(fs.ErrNotExist, "plug it in"), "file does not exist"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestErrorsAreFoundThroughWrapping(t *testing.T) {
	err := WithHint(fmt.Errorf("unlocking: %w", errors.Join(
		&TokenError{ID: 1, Type: "systemd-tpm2", Err: fmt.Errorf("chip: %w", &PolicyError{Bank: "sha256"})},
		&TokenError{ID: 2, Type: "systemd-fido2", Err: &FieldError{"fido2-salt", "is missing"}},
	)), "type the recovery key")
	for _, want := range []error{ErrPolicy, ErrMalformed} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not found", want)
		}
	}
	if errors.Is(err, ErrWrongPIN) || errors.Is(err, ErrCancelled) {
		t.Error("a sentinel that did not occur is found")
	}
	if field, ok := errors.AsType[*FieldError](err); !ok || field.Field != "fido2-salt" {
		t.Errorf("FieldError: %v", field)
	}
	if policy, ok := errors.AsType[*PolicyError](err); !ok || policy.Bank != "sha256" {
		t.Errorf("PolicyError: %v", policy)
	}
	hint, ok := errors.AsType[interface {
		error
		Hint() string
	}](fmt.Errorf("outer: %w", err))
	if !ok || hint.Hint() != "type the recovery key" {
		t.Error("the hint is not found")
	}
}
