// Package fido2 enrols and unlocks with FIDO2 security keys that have the
// hmac-secret extension, in tokens of type "systemd-fido2".
package fido2

// Handler is the token type "systemd-fido2".
type Handler struct{}
