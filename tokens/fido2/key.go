package fido2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// maxName bounds names that come from devices, in bytes.
const maxName = 64

// errSilent ends a call to a key that does not answer; its session is over then.
var errSilent = errors.New("does not answer")

// key is a FIDO2 key that is plugged in, with a session of its own.
type key struct {
	h      *Handler
	ui     tokens.UI
	device wire.Device
	info   *wire.Info
	name   string // for people: printable, never empty
	client *wire.Client
	// pin is the right one, once the key took it in this call.
	pin secret.Secret
	// hasty counts time-outs that came before anybody could have touched the key.
	hasty int
	// dead is why nothing more is tried on the key in this call.
	dead error
	// unasked is why a pre-flight did not tell what the key holds.
	unasked error
}

// silent is the UI of calls that ask nobody anything.
type silent struct{}

func (silent) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return secret.Secret{}, tokens.ErrNoPrompt
}
func (silent) Show(string) (done func()) { return func() {} }
func (silent) Note(string)               {}

// connect starts a session with the backend.
func (h *Handler) connect(ctx context.Context) (*wire.Client, error) {
	dial := h.Dial
	if dial == nil {
		dial = startProgram
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := dial(limited)
	if ctx.Err() != nil && err != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, explain(err, wire.Program)
	}
	return &wire.Client{Conn: conn}, nil
}

// startProgram starts luksmith-fido2.
func startProgram(ctx context.Context) (helper.Conn, error) {
	p, err := helper.Start(ctx, wire.Program)
	if err != nil {
		return nil, err // and not p, whose nil would not be one as a Conn
	}
	return p, nil
}

// inventory is the FIDO devices that are plugged in, and the session that listed
// them, which serves the first of them too: starting the helper is what takes time
// on a slow machine.
type inventory struct {
	devices []wire.Device
	spare   *wire.Client
}

// list starts a session and asks it for the devices. The caller closes the result.
func (h *Handler) list(ctx context.Context) (*inventory, error) {
	client, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	i := &inventory{spare: client}
	k := &key{h: h, ui: silent{}, client: client, name: wire.Program}
	err = k.quickly(ctx, func(ctx context.Context) (err error) {
		i.devices, err = client.List(ctx)
		return err
	})
	if err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *inventory) close() {
	if i.spare != nil {
		_ = i.spare.Close()
	}
}

// session returns the session for the next device.
func (i *inventory) session(ctx context.Context, h *Handler) (*wire.Client, error) {
	if client := i.spare; client != nil {
		i.spare = nil
		return client, nil
	}
	return h.connect(ctx)
}

// namelessKey is what a key is called that does not say its product.
const namelessKey = "FIDO2 key"

// open makes a session one with a key. It closes the session if that fails, the
// caller closes the key.
func (h *Handler) open(ctx context.Context, client *wire.Client, d wire.Device, ui tokens.UI) (*key, error) {
	k := &key{h: h, ui: ui, device: d, client: client, name: printable(d.Product, maxName)}
	if k.name == "" {
		k.name = namelessKey
	}
	if err := k.readInfo(ctx); err != nil {
		k.close()
		return nil, err
	}
	k.name = k.model()
	return k, nil
}

// close ends the session.
func (k *key) close() {
	k.pin.Wipe()
	_ = k.client.Close() // the process is gone afterwards, however it went
}

func (k *key) readInfo(ctx context.Context) error {
	return k.quickly(ctx, func(ctx context.Context) (err error) {
		k.info, err = k.client.Info(ctx, k.device.Path)
		return err
	})
}

// model is the product's name: from the table, or the key's own.
func (k *key) model() string {
	if name := products()[formatAAGUID(k.info.AAGUID)]; name != "" {
		return name
	}
	return k.name
}

// called is the key for prompts: its name, and the user's name for it if known.
func (k *key) called(label string) string {
	if label = printable(label, maxName); label == "" || label == k.name {
		return k.name
	}
	return fmt.Sprintf("%s (label %s)", k.name, label)
}

// What getInfo says: options that are absent have the defaults of CTAP 2.1 §6.4.

func (k *key) hasHMACSecret() bool { return slices.Contains(k.info.Extensions, "hmac-secret") }

// hasPIN reports whether a PIN is set.
func (k *key) hasPIN() bool { return k.info.Options["clientPin"] }

// hasUV reports whether the key can verify the user by itself, and is set up to.
func (k *key) hasUV() bool { return k.info.Options["uv"] }

// hasUP reports whether the key can tell a touch.
func (k *key) hasUP() bool {
	up, said := k.info.Options["up"]
	return up || !said
}

func (k *key) alwaysUV() bool { return k.info.Options["alwaysUv"] }

// quickly runs a call in which nobody has to do anything.
func (k *key) quickly(ctx context.Context, f func(ctx context.Context) error) error {
	return k.call(ctx, cmp.Or(k.h.answerLimit, defaultAnswerLimit), f)
}

// call gives a call to the backend a limit, extends it while another program uses
// the key, and explains what went wrong. Errors that end the session make the key
// dead.
func (k *key) call(ctx context.Context, limit time.Duration, f func(ctx context.Context) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(errSilent) })
	defer timer.Stop()
	done := func() {}
	k.client.OnEvent = func(event string) {
		if event == wire.EventInUse {
			timer.Reset(limit + inUseLimit)
			done = k.ui.Show(k.name + " is in use; waiting until it is free")
		}
	}
	err := f(inner)
	done()
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	err = explain(err, k.name)
	if errors.Is(err, errSilent) || errors.Is(err, tokens.ErrNoDevice) || errors.Is(err, helper.ErrCrashed) {
		k.dead = err
	}
	return err
}

// certainty is the result of a pre-flight.
type certainty int

const (
	absent certainty = iota
	possible
	certain
)

// holds finds out whether the key holds a credential, without touch and PIN: CTAP
// 2.1 "pre-flight". The hmac-secret extension stays out of it.
func (k *key) holds(ctx context.Context, p *parameters) (certainty, error) {
	a := &wire.Assertion{Path: k.device.Path, RP: p.rp, Credential: p.credential}
	if k.hasUP() {
		a.UP = wire.False
	}
	err := k.quickly(ctx, func(ctx context.Context) error {
		_, err := k.client.Assert(ctx, a, secret.Secret{}, secret.Secret{})
		return err
	})
	switch wire.CodeOf(err) {
	case "":
		if err != nil {
			return absent, err
		}
		return certain, nil
	case wire.NoCredentials:
		// A credential with credProtect level 3 hides until the user is verified.
		if p.uv == yes && (k.hasUV() || k.hasPIN()) {
			return possible, nil
		}
		return absent, nil
	case wire.UnsupportedOption, wire.UPRequired, wire.PINRequired, wire.UVInvalid, wire.UVBlocked, wire.ActionTimeout, wire.OperationDenied:
		return possible, nil // the key does not answer pre-flights
	case wire.PINInvalid:
		return absent, k.claimsWrongPIN()
	}
	return absent, err
}
