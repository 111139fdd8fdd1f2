package combo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// maxAnswers is how many answers a person may give, PINs of devices included, before
// the secrets of the devices are forgotten. It is that of tokens.UnlockWithRetries.
const maxAnswers = 3

// Unlock gathers the factors of one token after the other until the volume opens.
// A factor that several tokens share is asked for once; one that failed is not
// asked for again. After a wrong passphrase the secrets of the devices are kept for
// one more call with the same handler, so that only the passphrase is asked for.
func (h *Handler) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	g := h.resume(req, ui)
	unlocked, err := g.try(ctx, h.cheapestFirst(req.Tokens))
	if errors.Is(err, tokens.ErrWrongPIN) && g.answers < maxAnswers && ctx.Err() == nil {
		h.interrupted = g
	} else {
		g.wipe()
	}
	return unlocked, err
}

// resume goes on where a wrong passphrase ended the last call.
func (h *Handler) resume(req *tokens.UnlockRequest, ui tokens.UI) *gathering {
	g := h.interrupted
	h.interrupted = nil
	if g == nil || g.req.Volume.UUID != req.Volume.UUID {
		if g != nil {
			g.wipe()
		}
		g = &gathering{handler: h, secrets: map[string]secret.Secret{}}
	}
	g.req, g.UI, g.failed = req, ui, map[string]error{}
	return g
}

// try is Unlock for tokens in order.
func (g *gathering) try(ctx context.Context, list []*luks2.Token) (*tokens.Unlocked, error) {
	failures := error(nil)
	if len(list) == 0 {
		failures = fmt.Errorf("%w: no token to try", tokens.ErrNoDevice)
	}
	for _, t := range list {
		key, err := g.open(ctx, *t)
		if err == nil {
			return &tokens.Unlocked{Token: *t, Passphrase: key}, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failures = errors.Join(failures, tokens.FailureOf(*t, typeName, err))
		if errors.Is(err, tokens.ErrCancelled) {
			break
		}
	}
	return nil, failures
}

func (h *Handler) cheapestFirst(list []luks2.Token) []*luks2.Token {
	order := make([]*luks2.Token, len(list))
	for i := range list {
		order[i] = &list[i]
	}
	cost := func(t *luks2.Token) int {
		d, _ := h.Describe(*t)
		return d.Cost
	}
	slices.SortStableFunc(order, func(a, b *luks2.Token) int { return cost(a) - cost(b) })
	return order
}

// gathering is one Unlock: the factors that came together so far, by identity.
type gathering struct {
	tokens.UI
	handler *Handler
	req     *tokens.UnlockRequest
	secrets map[string]secret.Secret
	failed  map[string]error
	attempt int // passphrases that were wrong
	answers int // to questions of all factors
}

// Ask passes a question on and counts the answers.
func (g *gathering) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	answer, err := g.UI.Ask(ctx, p)
	if err == nil {
		g.answers++
	}
	return answer, err
}

func (g *gathering) wipe() {
	for _, s := range g.secrets {
		s.Wipe()
	}
	clear(g.secrets)
}

// open gathers the factors of one token. The passphrase comes last: nobody types it
// in vain, and a device that is missing is reported at once.
func (g *gathering) open(ctx context.Context, t luks2.Token) (secret.Secret, error) {
	d, err := g.handler.Describe(t)
	if err != nil {
		return secret.Secret{}, err
	}
	if d.Unusable != "" {
		return secret.Secret{}, fmt.Errorf("%w: %s", tokens.ErrUnsupported, d.Unusable)
	}
	tok, err := readToken(t.Raw)
	if err != nil {
		return secret.Secret{}, err
	}
	var typed *factor
	for i := range tok.factors {
		f := &tok.factors[i]
		if f.name == passphraseFactor {
			typed = f
			continue
		}
		if err := g.device(ctx, f); err != nil {
			return secret.Secret{}, fmt.Errorf("factor %s: %w", f.name, err)
		}
	}
	if typed == nil {
		return g.check(ctx, t, tok)
	}
	return g.checkTyped(ctx, t, tok, typed)
}

// device has a factor's handler give its secret.
func (g *gathering) device(ctx context.Context, f *factor) error {
	id := string(f.identity)
	if _, ok := g.secrets[id]; ok {
		return nil
	}
	if err := g.failed[id]; err != nil {
		return err
	}
	u := g.handler.unlocker(f.name)
	volume := g.req.Volume
	volume.Tokens = nil
	got, err := tokens.UnlockWithRetries(ctx, u, &tokens.UnlockRequest{Volume: volume, Tokens: []luks2.Token{f.token(u)}}, g)
	if err != nil {
		g.failed[id] = err
		return err
	}
	g.secrets[id] = got.Passphrase
	return nil
}

// checkTyped asks for the passphrase, once for all tokens of the call.
func (g *gathering) checkTyped(ctx context.Context, t luks2.Token, tok *token, f *factor) (secret.Secret, error) {
	id := string(f.identity)
	if _, ok := g.secrets[id]; !ok {
		if err := g.typed(ctx, f); err != nil {
			g.failed[id] = err
			return secret.Secret{}, fmt.Errorf("factor %s: %w", f.name, err)
		}
	}
	key, err := g.check(ctx, t, tok)
	if errors.Is(err, tokens.ErrWrongKey) {
		g.secrets[id].Wipe()
		delete(g.secrets, id)
		g.attempt++
		g.failed[id] = &mistypedError{err}
		err = g.failed[id]
	}
	return key, err
}

// mistypedError says that the factors open nothing together, and that one of them
// was typed: another answer may help, as after a wrong PIN.
type mistypedError struct{ error }

func (e *mistypedError) Unwrap() error { return e.error }

// Is makes it [tokens.ErrWrongPIN] too.
func (e *mistypedError) Is(target error) bool { return target == tokens.ErrWrongPIN }

func (g *gathering) typed(ctx context.Context, f *factor) error {
	if err := g.failed[string(f.identity)]; err != nil {
		return err
	}
	if err := f.affordable(); err != nil {
		return err
	}
	if g.attempt >= maxAnswers {
		return fmt.Errorf("%w: %d passphrases were wrong", tokens.ErrWrongPIN, g.attempt)
	}
	answer, err := g.Ask(ctx, tokens.Prompt{Text: "Passphrase, one of the factors, for " + g.req.Volume.Device, Credential: credential, Attempt: g.attempt})
	if err != nil {
		return err
	}
	defer answer.Wipe()
	s, err := f.stretched(ctx, answer)
	if err == nil {
		g.secrets[string(f.identity)] = s
	}
	return err
}

// check derives the passphrase of the keyslot and tries it. Which of several
// factors is wrong cannot be told.
func (g *gathering) check(ctx context.Context, t luks2.Token, tok *token) (secret.Secret, error) {
	secrets := make([]secret.Secret, len(tok.factors))
	for i, f := range tok.factors {
		secrets[i] = g.secrets[string(f.identity)]
	}
	key, err := tok.passphrase(secrets)
	if err != nil {
		return secret.Secret{}, err
	}
	if err := g.req.Check(ctx, t, key); err != nil {
		key.Wipe()
		return secret.Secret{}, err
	}
	return key, nil
}

// WaitDevice waits for whichever of the types notices a device first.
func (h *Handler) WaitDevice(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	results := make(chan error)
	waiting := 0
	for _, t := range h.Types {
		if w, ok := t.(tokens.DeviceWaiter); ok {
			waiting++
			go func() { results <- w.WaitDevice(ctx) }()
		}
	}
	failure := errors.New("no type of token waits for devices")
	noticed := false
	for range waiting {
		err := <-results
		if err == nil {
			noticed = true
			stop() // the others end, so that nothing runs beside the next Unlock
			continue
		}
		failure = err
	}
	if noticed {
		return nil
	}
	return failure
}
