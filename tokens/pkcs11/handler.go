package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"luksmith/internal/helper"
	"luksmith/tokens"
)

// Handler is the token type systemd-pkcs11. Its fields are the options of one run;
// the zero value unlocks with any token that is plugged in.
type Handler struct {
	// TokenURI selects the key to enrol: a PKCS#11 URI, or "auto" for the only
	// suitable key that is plugged in. Option pkcs11-token-uri.
	TokenURI string
	// NoVerify enrols a key without having it decrypt the result, for a token
	// of which only a certificate is at hand.
	NoVerify bool
	// UnlockURI narrows what the tokens of the header say of the key: it has to
	// match both; "auto" or "" leaves it to them. It comes from the
	// administrator, so a PIN in it (pin-value, pin-source) is used. Options
	// unlock-pkcs11-uri and, in crypttab, pkcs11-uri.
	UnlockURI string
	// Module is the absolute path of a PKCS#11 module to load instead of p11-kit
	// and what its configuration names. Only the administrator sets it, never a
	// URI or a header, and others must not be able to write to the file.
	Module string
	// Timeout is for one call of a module, after which its process is killed.
	// Keypads and touches have longer. 0 means 30 s.
	Timeout time.Duration
	// Connect starts a session with luksmith-pkcs11; nil runs the installed one.
	Connect func(context.Context) (helper.Conn, error)

	memory memory
}

var (
	_ tokens.MultiEnroller = (*Handler)(nil)
	_ tokens.Doubter       = (*Handler)(nil)
	_ tokens.Unlocker      = (*Handler)(nil)
	_ tokens.Watcher       = (*Handler)(nil)
	_ tokens.DeviceWaiter  = (*Handler)(nil)
	_ tokens.KeyFileUser   = (*Handler)(nil)
	_ tokens.DeviceLister  = (*Handler)(nil)
)

// auto is the value of the URI options that leaves the choice to us.
const auto = "auto"

// Type implements tokens.Handler.
func (h *Handler) Type() string { return Type }

// Name implements tokens.Handler.
func (h *Handler) Name() string { return typeName }

// typeName is what people call tokens of this type.
const typeName = "pkcs11"

// moduleOption names a module in place of those that p11-kit is configured for.
const moduleOption = "pkcs11-module"

// Subsystems implements tokens.Watcher: readers and keys are USB devices without a
// kernel driver, so nothing more telling than the device itself appears. A card in
// a reader makes no event at all, see WaitDevice.
func (h *Handler) Subsystems() []string { return []string{"usb"} }

// KeyFile implements tokens.KeyFileUser: with a URI in crypttab the key file is the
// ciphertext.
func (h *Handler) KeyFile() *tokens.KeyFileUse {
	if !strings.HasPrefix(h.UnlockURI, "pkcs11:") {
		return nil
	}
	return &tokens.KeyFileUse{Server: "cryptsetup-pkcs11"}
}

// Options implements tokens.Handler.
func (h *Handler) Options() []tokens.Option {
	words := []string{auto}
	return []tokens.Option{
		{
			Name: "pkcs11-token-uri", Arg: "URI", Place: tokens.Enrolling, Action: tokens.SelectEnroll, List: true, Since: 248,
			Help:   "enrol the key of a smartcard or other PKCS#11 token: a URI, auto, or list",
			Values: []string{auto, "list"}, Set: setURI(&h.TokenURI),
		},
		{
			Name: "pkcs11-no-verify", Place: tokens.Enrolling,
			Help: "do not have the PKCS#11 token prove that it can unlock", Set: tokens.SetSwitch(&h.NoVerify),
		},
		{
			Name: "unlock-pkcs11-uri", Arg: "URI", Place: tokens.Unlocking, Action: tokens.SelectUnlock,
			Help: "unlock the volume with a PKCS#11 token: a URI, or auto", Values: words, Set: setURI(&h.UnlockURI),
		},
		{
			Name: "pkcs11-uri", Arg: "URI|auto", Place: tokens.Crypttab, Action: tokens.SelectUnlock, Since: 245, Fatal: true, Uncached: true,
			Help: "unlock with a PKCS#11 token", Values: words, Set: h.setCrypttabURI,
		},
		{
			Name: moduleOption, Arg: "PATH", Place: tokens.Enrolling | tokens.Unlocking | tokens.Crypttab, Fatal: true,
			Help: "load this PKCS#11 module instead of those that p11-kit is configured for", Set: h.setModule,
		},
	}
}

// setURI is the Set function of an option that takes "auto" or a URI.
func setURI(dst *string) func(string) error {
	return func(value string) error {
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%.100q has control characters", value)
		}
		if value != auto {
			if _, err := parseURI(value); err != nil {
				// Without the value: a PIN may be in it.
				return fmt.Errorf("the value %w (wanted: auto, or pkcs11:… as in RFC 7512)", err)
			}
		}
		*dst = value
		return nil
	}
}

// setCrypttabURI judges the characters as systemd does (src/shared/pkcs11-util.c,
// pkcs11_uri_valid). A URI with the right ones that names nothing costs the tokens of
// this type.
func (h *Handler) setCrypttabURI(value string) error {
	rest, ok := strings.CutPrefix(value, "pkcs11:")
	if value != auto && (!ok || rest == "" || strings.ContainsFunc(rest, notInURI)) {
		return errors.New("wanted: auto or a PKCS#11 URI") // without the value: a PIN may be in it
	}
	return tokens.Unusable(setURI(&h.UnlockURI))(value)
}

func notInURI(r rune) bool {
	return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".~/-_?;&%=", r))
}

func (h *Handler) setModule(value string) error {
	if err := tokens.SetText(new(string))(value); err != nil {
		return err
	}
	if !filepath.IsAbs(value) {
		return fmt.Errorf("%.100q is not an absolute path", value)
	}
	h.Module = value
	return nil
}
