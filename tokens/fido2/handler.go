// Package fido2 enrols and unlocks with FIDO2 security keys that have the
// hmac-secret extension, in tokens of type "systemd-fido2".
//
// The package talks to keys only through the program luksmith-fido2 (package
// wire), one process for each key, so that a key that never answers can be given
// up. Its work is to decide: which key belongs to which token before anybody is
// asked (by pre-flight, an assertion without touch or PIN), when to ask for a PIN
// or a touch and when again, and what to record of how a key really behaved.
package fido2

import (
	"context"
	"fmt"
	"time"

	"luksmith/internal/helper"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// Handler is the token type "systemd-fido2". The zero value enrols whatever single
// key is plugged in, with PIN and touch, and unlocks with any.
type Handler struct {
	// Device is the key to enrol: a path, "auto" or "" for the only one that is
	// plugged in, or a name: the label of a token on the volume or the product
	// name.
	Device string
	// UnlockDevice is the same for unlocking; a label restricts unlocking to the
	// tokens that have it.
	UnlockDevice string

	// Algorithm of the credential's signature, ES256 when 0. Nothing is signed.
	Algorithm wire.Algorithm
	// WithPIN, WithUP and WithUV are what a new token shall need. Left unset they
	// mean yes, yes and no, and a key that lacks the feature is enrolled without;
	// what was asked for by name is never left out.
	WithPIN, WithUP, WithUV *bool
	// SaltFile is a file or socket with the salt, 32 bytes; "" makes a random one.
	SaltFile string
	// ParametersInHeader false makes no token: all that unlocking takes goes into
	// crypttab and the salt file. nil means true.
	ParametersInHeader *bool
	// AllowDuplicate enrols a key that the volume has already.
	AllowDuplicate bool

	// Credential, RP, NeedPIN, NeedUP and NeedUV take the place of a token for
	// volumes without one (crypttab fido2-cid= and so on); the salt is
	// UnlockRequest.KeyData. RP "" means DefaultRP, nil lets the key decide.
	Credential              []byte
	RP                      string
	NeedPIN, NeedUP, NeedUV *bool

	// Dial starts a session with a backend; nil starts luksmith-fido2.
	Dial func(ctx context.Context) (helper.Conn, error)

	// wrongPINs counts them by the path of the key, over the calls of this run.
	wrongPINs map[string]int
	// unreadPIN says that the last PIN was sent to a key that looked at none.
	unreadPIN bool
	// How long a key may take: to answer when nobody has to do anything, and
	// in all when somebody does. 0 means the constants below.
	answerLimit, touchLimit time.Duration
}

const (
	// startLimit is for the helper program, on a machine that is booting.
	startLimit         = 30 * time.Second
	defaultAnswerLimit = 8 * time.Second
	// Keys give up on a touch after 10 to 60 s by themselves (CTAP 2.1 §6.1.2:
	// no less than 10). This one is for keys that do not.
	defaultTouchLimit = 2 * time.Minute
	// inUseLimit is added while another program uses the key: longer than the
	// helper itself waits for it.
	inUseLimit = 130 * time.Second
	// touchRequests is how often an enrolment asks for the same touch.
	touchRequests = 3
	// unlockRequests is how often an unlocking asks one key for a touch.
	unlockRequests = 30
	// shortestTouch is less than any key waits for a touch, and hastyAnswers how often
	// one may say earlier that it was not touched in time.
	shortestTouch = 2 * time.Second
	hastyAnswers  = 10
	// fewTries is when only a person is asked for a PIN: a wrong one in a
	// credential would use up the last tries, one at each boot.
	fewTries = 3
	// fingerRequests is how often a fingerprint is asked for before the PIN is.
	fingerRequests = 3
)

var (
	_ tokens.MultiEnroller = (*Handler)(nil)
	_ tokens.Doubter       = (*Handler)(nil)
	_ tokens.Unlocker      = (*Handler)(nil)
	_ tokens.Watcher       = (*Handler)(nil)
	_ tokens.DeviceLister  = (*Handler)(nil)
	_ tokens.Finder        = (*Handler)(nil)
	_ tokens.KeyFileUser   = (*Handler)(nil)
)

// Type is "systemd-fido2".
func (*Handler) Type() string { return Type }

// Name is "fido2".
func (*Handler) Name() string { return typeName }

// typeName is what people call tokens of this type.
const typeName = "fido2"

// KeyFile implements [tokens.KeyFileUser]: with a credential in crypttab the key file is
// the salt. systemd 257 ignores keyfile-size= for it.
func (h *Handler) KeyFile() *tokens.KeyFileUse {
	if len(h.Credential) == 0 {
		return nil
	}
	return &tokens.KeyFileUse{Server: "cryptsetup-fido2-salt", Whole: true, Alone: true}
}

// Subsystems implements [tokens.Watcher]: USB and Bluetooth keys are hidraw devices.
func (*Handler) Subsystems() []string { return []string{"hidraw"} }

// Devices implements [tokens.DeviceLister]. The first columns are systemd's; a key
// that cannot be asked has no entries behind them.
func (h *Handler) Devices(ctx context.Context) (*tokens.DeviceTable, error) {
	found, err := h.list(ctx)
	if err != nil {
		return nil, err
	}
	defer found.close()
	table := &tokens.DeviceTable{Columns: []string{"PATH", "MANUFACTURER", "PRODUCT", "COMPATIBLE", "RK", "CLIENTPIN", "UP", "UV", "MODEL"}}
	for _, d := range found.devices {
		row, err := h.row(ctx, found, d)
		if err != nil {
			return nil, err
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}

// Find implements [tokens.Finder]. A path need not be in the list.
func (h *Handler) Find(ctx context.Context) error {
	if isPath(h.Device) {
		return nil
	}
	found, err := h.list(ctx)
	if err != nil {
		return err
	}
	defer found.close()
	if len(found.devices) == 0 {
		return nonePluggedIn()
	}
	return nil
}

// nonePluggedIn says that there is no key at all.
func nonePluggedIn() error { return fmt.Errorf("%w: no FIDO2 key is plugged in", tokens.ErrNoDevice) }

// row asks one device. An error means that the list is over.
func (h *Handler) row(ctx context.Context, found *inventory, d wire.Device) ([]string, error) {
	row := []string{d.Path, printable(d.Manufacturer, maxName), printable(d.Product, maxName), "", "", "", "", "", ""}
	client, err := found.session(ctx, h)
	if err != nil {
		return nil, err
	}
	k, err := h.open(ctx, client, d, silent{})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return row, nil
	}
	defer k.close()
	copy(row[3:], []string{yesNo(k.hasHMACSecret()), yesNo(k.info.Options["rk"]), yesNo(k.info.Options["clientPin"]),
		yesNo(k.hasUP()), yesNo(k.hasUV()), k.name})
	return row, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
