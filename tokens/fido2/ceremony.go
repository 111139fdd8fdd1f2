package fido2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// promptKeyring is where systemd's agents cache the PIN; promptCredential names
// its credentials.
const (
	promptKeyring    = "fido2-pin"
	promptCredential = "fido2-pin"
)

// ceremony is one request to a key in which a person has a part: it asks for PIN,
// touch and fingerprint as the key demands them, and again as long as that makes
// sense. do makes the request once, with the needs as they stand.
type ceremony struct {
	k     *key
	label string
	// purpose completes "Touch KEY …" on the screen, such as "to unlock".
	purpose string
	do      func(ctx context.Context, c *ceremony, pin secret.Secret) error
	// pin, up and uv are what is sent. The key may turn them on.
	pin, up, uv bool
	// blinks says that the key may want a touch although none is asked of it.
	blinks bool
	// enrolling asks for a wrong PIN again, and gives up after some time-outs.
	enrolling bool

	// turn is how many time-outs end the request, so that another key gets its turn;
	// 0 for touchRequests or unlockRequests.
	turn int

	began             time.Time // the last request
	timeouts, fingers int
}

// run repeats do until it succeeds or nothing can be done. When it returns nil the
// fields say what the key took.
func (c *ceremony) run(ctx context.Context) error {
	for {
		err := c.once(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.decide(ctx, err); err != nil {
			return err
		}
	}
}

// once asks for what has to be there before, and makes the request.
func (c *ceremony) once(ctx context.Context) error {
	if c.pin {
		if err := c.askPIN(ctx); err != nil {
			return err
		}
	}
	if text := c.request(); text != "" {
		done := c.k.ui.Show(text)
		defer done()
	}
	c.began = time.Now()
	return c.k.call(ctx, cmp.Or(c.k.h.touchLimit, defaultTouchLimit), func(ctx context.Context) error {
		pin := secret.Secret{}
		if c.pin {
			pin = c.k.pin
		}
		return c.do(ctx, c, pin)
	})
}

// request is what the person is to do at the key.
func (c *ceremony) request() string {
	byItself := c.up && c.k.alwaysUV() && c.k.hasUV()
	switch {
	case (c.uv || byItself) && !c.pin:
		return fmt.Sprintf("Touch the fingerprint reader of %s, or confirm there who you are, %s", c.k.called(c.label), c.purpose)
	case c.up:
		return fmt.Sprintf("Touch %s %s", c.k.called(c.label), c.purpose)
	case c.blinks:
		return fmt.Sprintf("Touch %s if it blinks, %s", c.k.called(c.label), c.purpose)
	}
	return ""
}

// askPIN gets the PIN unless it is known.
func (c *ceremony) askPIN(ctx context.Context) error {
	k := c.k
	if k.pin.Len() > 0 {
		return nil
	}
	if err := k.pinObstacle(); err != nil {
		if k.hasPIN() {
			k.dead = err
		}
		return err
	}
	pin, err := k.promptPIN(ctx, c.label)
	if err != nil {
		return err
	}
	if err := wire.CheckPIN(pin); err != nil {
		pin.Wipe()
		k.countWrongPIN()
		return &explained{fmt.Sprintf("%v: %v; it was not sent to %s", tokens.ErrWrongPIN, err, k.name),
			[]error{tokens.ErrWrongPIN, errNotSent, codeError(wire.PINInvalid)}}
	}
	k.pin = pin
	return nil
}

// pinObstacle says why the key takes no PIN, before anybody is asked for one.
func (k *key) pinObstacle() error {
	switch {
	case !k.hasPIN():
		return fmt.Errorf("%w: a PIN is needed and %s has none set", tokens.ErrOtherDevice, k.name)
	case k.info.PINRetries == 0:
		return explain(codeError(wire.PINBlocked), k.name)
	}
	return nil
}

// promptPIN asks for the PIN. Sources other than a person are for the first attempt
// only, and not for the last tries.
func (k *key) promptPIN(ctx context.Context, label string) (secret.Secret, error) {
	wrong, left := k.h.wrongPINs[k.device.Path], k.info.PINRetries
	person := wrong == 0 && left >= 0 && left <= fewTries
	pin, err := tokens.AskWhile(ctx, k.ui, tokens.Prompt{
		Text: "PIN of " + k.called(label), Credential: promptCredential, Keyring: promptKeyring,
		TriesLeft: max(left, 0), Attempt: wrong, Person: person, Unread: k.h.unreadPIN, Check: wire.CheckPIN,
	}, k.presence())
	k.h.unreadPIN = false
	switch {
	case errors.Is(err, tokens.ErrNoPrompt) && wrong > 0:
		return pin, &explained{fmt.Sprintf("%v, and nobody can be asked for another", tokens.ErrWrongPIN), []error{tokens.ErrWrongPIN, tokens.ErrNoPrompt}}
	case errors.Is(err, tokens.ErrNoPrompt) && person:
		return pin, tokens.WithHint(fmt.Errorf("%w; with %s no other source is used", err, tokens.Tries(left)),
			"type the PIN at a terminal: a right one gives the key all its tries back")
	}
	return pin, err
}

// presence tells whether the node of the key is there. Where it was not there to begin
// with, nothing is known.
func (k *key) presence() func(context.Context) (bool, error) {
	before, err := os.Stat(k.device.Path)
	return func(context.Context) (bool, error) {
		if err != nil {
			return false, err
		}
		now, err := os.Stat(k.device.Path)
		return err == nil && os.SameFile(before, now), nil
	}
}

func (k *key) countWrongPIN() {
	if k.h.wrongPINs == nil {
		k.h.wrongPINs = map[string]int{}
	}
	k.h.wrongPINs[k.device.Path]++
	k.pin.Wipe()
	k.pin = secret.Secret{}
}

// decide returns nil when the request is to be made again, with the fields changed
// so that something else can come out.
func (c *ceremony) decide(ctx context.Context, err error) error {
	switch code := wire.CodeOf(err); {
	case (code == wire.UPRequired || code == wire.UnsupportedOption) && !c.up:
		c.up = true
		return nil
	case code == wire.PINRequired && !c.pin && !c.uv && c.k.hasUV() && c.k.alwaysUV():
		c.uv = true
		return nil
	case code == wire.PINRequired && !c.pin && c.k.hasPIN():
		c.pin = true
		return nil
	case code == wire.ActionTimeout:
		return c.untouched(err)
	case code == wire.UVInvalid, code == wire.UVBlocked:
		return c.unrecognised(code, err)
	case code == wire.PINInvalid:
		return c.wrongPIN(ctx, err)
	case errors.Is(err, tokens.ErrLocked):
		c.locked(ctx, err)
	}
	return err
}

// locked ends the tries of a key. One that was blocked before looked at no PIN, so
// the source may give that again; one that a wrong PIN has blocked now has a try
// less.
func (c *ceremony) locked(ctx context.Context, err error) {
	k := c.k
	k.dead = err
	if k.pin.Len() == 0 {
		return
	}
	before := k.info.PINRetries
	if k.readInfo(ctx) == nil && k.info.PINRetries < before {
		k.countWrongPIN()
		return
	}
	k.h.unreadPIN = true
}

// untouched asks again, for a long time while unlocking: the person may come back
// from lunch. A key that says at once that it was not touched in time will go on
// saying so.
func (c *ceremony) untouched(err error) error {
	c.timeouts++
	limit := unlockRequests
	if c.enrolling {
		limit = touchRequests
	}
	if c.turn > 0 {
		limit = c.turn
	}
	if time.Since(c.began) < shortestTouch {
		c.k.hasty++
		if c.k.hasty >= hastyAnswers {
			c.k.dead = err
			return err
		}
	}
	if c.timeouts >= limit {
		return err
	}
	return nil
}

// unrecognised reads another finger, and falls back to the PIN, which verifies the
// user as well and so gives the same secret.
func (c *ceremony) unrecognised(code string, err error) error {
	c.fingers++
	switch {
	case code == wire.UVInvalid && c.fingers < fingerRequests:
		return nil
	case c.k.hasPIN() && !c.pin:
		c.k.ui.Note(fmt.Sprintf("%s recognises no fingerprint. Its PIN does as well.", c.k.name))
		c.pin = true
		return nil
	}
	c.k.dead = err
	return err
}

// errNotSent marks a PIN that no key can have.
var errNotSent = errors.New("the PIN was not sent")

func (c *ceremony) wrongPIN(ctx context.Context, err error) error {
	if sent := c.pin && c.k.pin.Len() > 0; !sent && !errors.Is(err, errNotSent) {
		c.k.dead = c.k.claimsWrongPIN()
		return c.k.dead
	}
	if c.k.pin.Len() > 0 {
		c.k.countWrongPIN()
	}
	if infoErr := c.k.readInfo(ctx); infoErr != nil { // for the tries left
		return infoErr
	}
	if c.enrolling {
		return nil
	}
	if left := c.k.info.PINRetries; left >= 0 {
		err = &explained{fmt.Sprintf("%v, %s", err, tokens.Tries(left)), []error{err}}
	}
	c.k.dead = err
	return err
}

// claimsWrongPIN is the error of a key that answers so to what has no PIN.
func (k *key) claimsWrongPIN() error {
	return &explained{fmt.Sprintf("%s says that the PIN is wrong, although none was sent", k.name), []error{codeError(wire.Broken)}}
}

// derived is the outcome of a derivation.
type derived struct {
	secret secret.Secret // 32 bytes for each salt; the receiver wipes it
	// How it went. up and pin are what was sent and taken; uv is whether the key
	// itself verified the user.
	pin, up, uv need
}

// derive gets the secrets for one or two salts.
func (k *key) derive(ctx context.Context, p *parameters, salts secret.Secret, c ceremony) (*derived, error) {
	var answer *wire.Asserted
	c.k, c.label = k, p.label
	c.pin, c.up, c.blinks = p.pin == yes, p.up == yes, p.up == ifAsked
	c.uv = p.uv == yes && k.hasUV()
	if p.uv == yes && !c.uv {
		c.pin = true // the only other way to be verified
	}
	c.do = func(ctx context.Context, c *ceremony, pin secret.Secret) (err error) {
		a := &wire.Assertion{Path: k.device.Path, RP: p.rp, Credential: p.credential}
		if k.hasUP() {
			a.UP = wire.Of(c.up)
		}
		if k.hasUV() && (p.uv != ifAsked || c.uv) {
			a.UV = wire.Of(c.uv)
		}
		answer, err = k.client.Assert(ctx, a, pin, salts)
		return err
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	return &derived{
		secret: answer.Secret,
		pin:    needOf(c.pin),
		up:     needOf(k.hasUP() && (c.up || answer.UP)),
		uv:     needOf(k.hasUV() && (c.uv || !c.pin) && answer.UV),
	}, nil
}

// codeError is an error of a backend that no backend sent.
func codeError(code string) error { return &helper.Error{Code: code} }
