package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

const (
	// pinPrompts is how often a PIN is asked for one token, as in systemd.
	pinPrompts = 3
	// maxPINFile bounds a file with a PIN.
	maxPINFile = 1024
)

// pins keeps the PINs that were right, by the identity of the token, for the next
// session with it, and those that were wrong, so that none is tried on another
// token.
type pins struct {
	right map[string]secret.Secret
	wrong []secret.Secret
}

func (p *pins) wipe() {
	for _, pin := range p.right {
		pin.Wipe()
	}
	secret.WipeAll(p.wrong)
}

func (p *pins) keep(device *wire.Token, pin secret.Secret) {
	if p.right == nil {
		p.right = map[string]secret.Secret{}
	}
	id := identity(device)
	if known := p.right[id]; known.Len() == 0 {
		p.right[id] = pin.Clone()
	}
}

// refused reports whether another token has refused the PIN.
func (p *pins) refused(pin secret.Secret) bool {
	for _, wrong := range p.wrong {
		if wrong.Equal(pin) {
			return true
		}
	}
	return false
}

// login logs into a token: not at all, at its keypad, with a PIN that was right
// before, with the one of the administrator's URI, or by asking. A PIN is sent
// once, and every question is at most one C_Login.
func (r *run) login(ctx context.Context, s *session, device *wire.Token) error {
	if err := checkPINState(device); err != nil {
		return err
	}
	switch {
	case !device.LoginRequired:
		return nil
	case device.Keypad:
		return r.loginAtKeypad(ctx, s, device)
	}
	if pin, ok := r.pins.right[identity(device)]; ok {
		return r.loginWith(ctx, s, device, pin)
	}
	pin := r.configuredPIN(device)
	defer pin.Wipe()
	if pin.Len() == 0 {
		return r.askAndLogin(ctx, s, device, nil)
	}
	err := r.loginWith(ctx, s, device, pin)
	if !errors.Is(err, tokens.ErrWrongPIN) {
		return err
	}
	r.memory.configuredRefused = true
	device, state := s.afterWrongPIN(ctx, device)
	if state != nil {
		return state
	}
	return r.askAndLogin(ctx, s, device, err)
}

// checkPINState spares the person a question when no answer can help.
func checkPINState(device *wire.Token) error {
	switch {
	case device.PINLocked:
		return locked(device, tokens.ErrLocked)
	case device.LoginRequired && !device.PINSet && !device.Keypad:
		return fmt.Errorf("%s has no user PIN yet", deviceName(device))
	}
	return nil
}

func locked(device *wire.Token, err error) error {
	return tokens.WithHint(fmt.Errorf("PIN of %s: %w", deviceName(device), err),
		"unblock the PIN with the PUK or security officer's PIN: ykman piv access unblock-pin, or pkcs11-tool --init-pin --login --login-type so")
}

func (r *run) loginAtKeypad(ctx context.Context, s *session, device *wire.Token) error {
	done := r.ui.Show(fmt.Sprintf("Enter the PIN of %s on its keypad", deviceName(device)))
	defer done()
	return explain(device, s.login(ctx, device.Slot, secret.Secret{}))
}

// askAndLogin asks for the PIN until it is right, at most pinPrompts times. refused
// is the error for one that was wrong already, or nil.
func (r *run) askAndLogin(ctx context.Context, s *session, device *wire.Token, refused error) error {
	for attempt := range pinPrompts {
		if refused != nil {
			attempt = max(attempt, 1)
		}
		pin, err := r.ask(ctx, s, device, attempt)
		if err == nil {
			err = r.loginWith(ctx, s, device, pin)
			pin.Wipe()
		}
		if errors.Is(err, tokens.ErrNoPrompt) && refused != nil {
			return fmt.Errorf("%w, and nobody can be asked for another", refused)
		}
		if !errors.Is(err, tokens.ErrWrongPIN) {
			return err
		}
		refused = err
		if device, err = s.afterWrongPIN(ctx, device); err != nil {
			return err
		}
	}
	return refused
}

// afterWrongPIN returns a token with its counters as they are now, so that the next
// question can warn, or an error if there must be none.
func (s *session) afterWrongPIN(ctx context.Context, device *wire.Token) (*wire.Token, error) {
	device, err := s.token(ctx, device.Slot)
	if err != nil {
		return nil, err
	}
	return device, checkPINState(device)
}

// ask gets a PIN from the person or a credential. Above attempt 0 it is a person
// that is asked, so that the last try is not used up by a credential, nor a PIN
// tried that another token refused: that comes from a credential, too, or somebody
// mixed up the tokens. A token that does not show the key gets no PIN but from a
// person, who is told.
//
// The question goes when the token is pulled out.
func (r *run) ask(ctx context.Context, s *session, device *wire.Token, attempt int) (secret.Secret, error) {
	p := tokens.Prompt{Text: "PIN of " + deviceName(device), Credential: "pkcs11-pin", Attempt: attempt,
		Unread: r.memory.unread, Check: func(pin secret.Secret) error { return checkPIN(device, pin) }}
	r.memory.unread = false
	switch {
	case device.PINFinalTry:
		p.TriesLeft, p.Attempt = 1, max(attempt, 1)
	case device.PINCountLow && attempt == 0:
		p.Text += " (a wrong one was entered before)"
	}
	if r.stranger {
		p.Person = true
		p.Text += ", which does not show the key"
	}
	present := s.presence(ctx, device)
	pin, err := tokens.AskWhile(ctx, r.ui, p, present)
	if err == nil && p.Attempt == 0 && r.pins.refused(pin) {
		pin.Wipe()
		p.Attempt = 1
		pin, err = tokens.AskWhile(ctx, r.ui, p, present)
	}
	switch {
	case err == nil && pin.Len() == 0:
		err = fmt.Errorf("no PIN given for %s", deviceName(device))
	case errors.Is(err, tokens.ErrNoPrompt) && r.stranger:
		err = tokens.WithHint(fmt.Errorf("%w: %s shows other keys and not that of the volume, so it gets a PIN only from a person", err, deviceName(device)),
			"if it has the key, name the card: --unlock-pkcs11-uri=, pkcs11-uri= in crypttab")
	case errors.Is(err, tokens.ErrNoPrompt) && device.PINFinalTry:
		err = fmt.Errorf("%w: %s has one try left, for which no credential is used", err, deviceName(device))
	}
	return pin, err
}

// loginWith sends one PIN. One of impossible length is not sent: it would cost a
// try for nothing.
func (r *run) loginWith(ctx context.Context, s *session, device *wire.Token, pin secret.Secret) error {
	if err := checkPIN(device, pin); err != nil {
		return fmt.Errorf("PIN of %s: %w: %w", deviceName(device), tokens.ErrWrongPIN, err)
	}
	if r.memory.sent++; r.memory.sent > maxPINs {
		return fmt.Errorf("PIN of %s: not sent: %d were sent to PKCS#11 tokens already", deviceName(device), maxPINs)
	}
	err := s.login(ctx, device.Slot, pin)
	switch {
	case err == nil:
		r.pins.keep(device, pin)
	case errors.Is(err, tokens.ErrWrongPIN):
		r.pins.wrong = append(r.pins.wrong, pin.Clone())
	case errors.Is(err, tokens.ErrNoDevice):
		r.memory.unread = true // it was pulled out before it looked
	}
	return explain(device, err)
}

// checkPIN says why a token can have no such PIN.
func checkPIN(device *wire.Token, pin secret.Secret) error {
	if n := pin.Len(); n < device.MinPIN || device.MaxPIN > 0 && n > device.MaxPIN {
		return fmt.Errorf("it has %d characters, the token takes %d to %d", n, device.MinPIN, device.MaxPIN)
	}
	return nil
}

// presence tells whether a token is in its slot. The question outlives a module that
// does not say; and the end of a question does not end the session in the middle of
// an answer.
func (s *session) presence(ctx context.Context, device *wire.Token) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		_, err := s.token(context.WithoutCancel(ctx), device.Slot)
		if errors.Is(err, tokens.ErrNoDevice) {
			return false, nil
		}
		return true, err
	}
}

// explain names the token in an error of C_Login.
func explain(device *wire.Token, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tokens.ErrLocked):
		return locked(device, err)
	}
	return fmt.Errorf("PIN of %s: %w", deviceName(device), err)
}

// configuredPIN reads the PIN of the administrator's URI; the zero Secret without
// one. The caller wipes it. A wrong one would be sent at every boot, so the last
// try of a token is left to a person.
func (r *run) configuredPIN(device *wire.Token) secret.Secret {
	value, hasValue := r.admin.query["pin-value"]
	source, hasSource := r.admin.query["pin-source"]
	switch {
	case !hasValue && !hasSource, r.memory.configuredRefused, r.stranger:
		return secret.Secret{}
	case device.PINFinalTry:
		r.ui.Note(deviceName(device) + " has one try left: the PIN of the configured URI is not used")
		return secret.Secret{}
	case hasValue:
		return secret.Copy([]byte(value)) // an option is a string anyway
	}
	pin, err := readPIN(source)
	if err != nil {
		r.ui.Note(clean(err.Error()))
	}
	return pin
}

// readPIN reads a file named by pin-source, as a path or a file: URL (RFC 7512
// §2.4). The other form that the RFC gives, a program to run, is not for us. One
// line break at the end does not count.
func readPIN(source string) (secret.Secret, error) {
	path := source
	if u, err := url.Parse(source); err == nil && u.Scheme == "file" && u.Host == "" {
		path = u.Path
	}
	if !filepath.IsAbs(path) {
		return secret.Secret{}, fmt.Errorf("pin-source %q is neither an absolute path nor a file: URL", source)
	}
	f, err := os.Open(path)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading pin-source: %w", err)
	}
	defer f.Close()
	pin, err := secret.Read(f, maxPINFile)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("reading pin-source %s: %w", path, err)
	}
	if n := pin.Len(); n > 0 && pin.Bytes()[n-1] == '\n' {
		pin.Truncate(n - 1)
	}
	if pin.Len() == 0 {
		return secret.Secret{}, fmt.Errorf("pin-source %s is empty", path)
	}
	return pin, nil
}
