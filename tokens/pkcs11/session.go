package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// How long a module may take for one call before its process is killed.
const (
	defaultTimeout = 30 * time.Second
	keypadTimeout  = 2 * time.Minute // a person walks to the reader and types
	touchTimeout   = time.Minute     // a decryption may wait for a touch
	closeTimeout   = time.Second     // nobody wants to wait for this
)

// session is one process of luksmith-pkcs11 with a module loaded.
type session struct {
	conn    helper.Conn
	timeout time.Duration
	broken  bool // the process is gone; nothing more will work
}

// open starts the helper and loads the module. The caller closes the session.
func (h *Handler) open(ctx context.Context) (*session, error) {
	s := &session{timeout: h.Timeout}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, s.timeout, errSilent)
	defer cancel()
	var err error
	if s.conn, err = h.start(limited); err != nil {
		return nil, translate(ctx, limited, err)
	}
	if _, err := s.call(ctx, helper.Call{Method: wire.MethodOpen, Params: wire.OpenParams{Module: h.Module}}, nil); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (h *Handler) start(ctx context.Context) (helper.Conn, error) {
	if h.Connect != nil {
		return h.Connect(ctx)
	}
	return helper.Start(ctx, wire.Program)
}

// close lets the module put the card in order, which takes longer than a helper
// has for a silent end, and then ends the process.
func (s *session) close() {
	if !s.broken {
		_, _ = s.callWithin(context.Background(), closeTimeout, helper.Call{Method: wire.MethodClose}, nil)
	}
	_ = s.conn.Close()
}

// errSilent marks the end of a time of our own, as opposed to the caller's.
var errSilent = errors.New("no answer")

// call sends one request with the usual time limit.
func (s *session) call(ctx context.Context, c helper.Call, result any) ([]secret.Secret, error) {
	return s.callWithin(ctx, s.timeout, c, result)
}

// callWithin sends one request. Unless the helper itself reports the failure, the
// session is broken afterwards.
func (s *session) callWithin(ctx context.Context, limit time.Duration, c helper.Call, result any) ([]secret.Secret, error) {
	limited, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	secrets, err := s.conn.Call(limited, c, result)
	if err == nil {
		return secrets, nil
	}
	if _, reported := errors.AsType[*helper.Error](err); !reported {
		s.broken = true
	}
	return nil, translate(ctx, limited, withoutPIN(c.Method, err))
}

// withoutPIN takes a word about the PIN from an error of a call that has to do with
// none: some modules use its codes for whatever they dislike.
func withoutPIN(method string, err error) error {
	reported, ok := errors.AsType[*helper.Error](err)
	aboutPIN := ok && (reported.Code == wire.CodeWrongPIN || reported.Code == wire.CodePINLocked)
	if !aboutPIN || slices.Contains([]string{wire.MethodLogin, wire.MethodDecrypt, wire.MethodDerive}, method) {
		return err
	}
	other := *reported
	other.Code = wire.CodeFailed
	return &other
}

// translate gives an error of the helper the sentinel that commands go by, and
// takes out what does not belong on a terminal: modules write the text.
func translate(ctx, limited context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fmt.Errorf("%w: a PKCS#11 module does not answer", tokens.ErrTimeout)
	case errors.Is(err, helper.ErrNotInstalled):
		return &cleanError{fmt.Errorf("%w: %w", tokens.ErrNotBuilt, err)}
	}
	reported, ok := errors.AsType[*helper.Error](err)
	if !ok {
		return &cleanError{err}
	}
	if sentinel := sentinelOf(reported.Code); sentinel != nil {
		return &cleanError{fmt.Errorf("%w: %w", sentinel, err)}
	}
	return &cleanError{err}
}

func sentinelOf(code string) error {
	switch code {
	case wire.CodeModule:
		return tokens.ErrNotBuilt
	case wire.CodeNotPresent:
		return tokens.ErrNoDevice
	case wire.CodeWrongPIN:
		return tokens.ErrWrongPIN
	case wire.CodePINLocked:
		return tokens.ErrLocked
	}
	return nil
}

// cleanError shows an error whose text comes from a module.
type cleanError struct{ error }

// Error is one printable line.
func (e *cleanError) Error() string { return clean(e.error.Error()) }

// Unwrap is the error with its sentinels.
func (e *cleanError) Unwrap() error { return e.error }

// clean makes one printable line of a text of moderate length.
func clean(text string) string {
	const limit = 300
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		text = strings.Trim(strconv.Quote(text), `"`)
	}
	return text
}

// list returns the tokens that are plugged in.
func (s *session) list(ctx context.Context) (*wire.Tokens, error) {
	var list wire.Tokens
	_, err := s.call(ctx, helper.Call{Method: wire.MethodTokens}, &list)
	return &list, err
}

// token returns one token as it is now, after its PIN counters may have changed.
func (s *session) token(ctx context.Context, slot uint) (*wire.Token, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list.Tokens {
		if list.Tokens[i].Slot == slot {
			return &list.Tokens[i], nil
		}
	}
	return nil, tokens.ErrNoDevice
}

// publicKeys returns the public keys and certificates that a URI selects.
func (s *session) publicKeys(ctx context.Context, slot uint, u uri) ([]wire.PublicKey, error) {
	var keys []wire.PublicKey
	_, err := s.call(ctx, helper.Call{Method: wire.MethodPublicKeys, Params: keyParams(slot, u)}, &keys)
	return keys, err
}

// privateKeys returns the usable private keys that a URI selects.
func (s *session) privateKeys(ctx context.Context, slot uint, u uri) ([]wire.PrivateKey, error) {
	var all []wire.PrivateKey
	_, err := s.call(ctx, helper.Call{Method: wire.MethodPrivateKeys, Params: keyParams(slot, u)}, &all)
	var matching []wire.PrivateKey
	for _, key := range all { // modules are not trusted to have selected
		if u.matchesObject(key.ID, key.Label) {
			matching = append(matching, key)
		}
	}
	return matching, err
}

func keyParams(slot uint, u uri) wire.KeyParams {
	return wire.KeyParams{Slot: slot, ID: []byte(u.attrs[attrID]), Label: []byte(u.attrs[attrObject])}
}

// login logs into a token: with a PIN, or at its keypad with the zero Secret.
func (s *session) login(ctx context.Context, slot uint, pin secret.Secret) error {
	limit, secrets := s.timeout, []secret.Secret{pin}
	if pin.Len() == 0 {
		limit, secrets = max(limit, keypadTimeout), nil
	}
	_, err := s.callWithin(ctx, limit, helper.Call{Method: wire.MethodLogin, Params: wire.LoginParams{Slot: slot}, Secrets: secrets}, nil)
	return err
}

// recover has the token decrypt or derive the secret of a record with a private
// key. pin is for keys that want it each time, empty for a keypad. The caller wipes
// the secret.
func (s *session) recover(ctx context.Context, slot uint, key *wire.PrivateKey, r *record, pin secret.Secret) (secret.Secret, error) {
	call := helper.Call{Method: wire.MethodDecrypt, Params: wire.DecryptParams{
		Slot: slot, Key: key.Handle, Padding: r.padding, Ciphertext: r.key, Size: len(r.key) / 2}}
	if key.PINEachTime {
		call.Secrets = []secret.Secret{pin}
	}
	if r.ec() {
		if err := checkPoint(key, r.key); err != nil {
			return secret.Secret{}, err
		}
		call = helper.Call{Method: wire.MethodDerive, Params: wire.DeriveParams{Slot: slot, Key: key.Handle, Point: r.key}}
	}
	answer, err := s.callWithin(ctx, max(s.timeout, touchTimeout), call, nil)
	if err != nil {
		return secret.Secret{}, err
	}
	if len(answer) != 1 || answer[0].Len() == 0 {
		secret.WipeAll(answer)
		return secret.Secret{}, errors.New("luksmith-pkcs11 sent no secret")
	}
	if r.ec() {
		return fullLength(answer[0], len(r.key)/2)
	}
	return answer[0], nil
}
