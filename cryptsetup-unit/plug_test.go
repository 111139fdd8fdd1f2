package main

import (
	"cmp"
	"context"
	"sync"
	"time"

	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

// plug is a token type whose device can be plugged in: a scripted outcome for each
// call of Unlock.
type plug struct {
	typ     string
	script  []func(*tokens.UnlockRequest) error // nil error opens with the passphrase "right"
	calls   int
	seen    [][]int // ids of the candidates of each call
	keyData []string
	// passphrase that the device gives; "right" if empty
	passphrase string
	asks       bool // for a PIN, in each call
	real       tokens.Handler
}

// like is the handler whose options the plug has.
func (p *plug) like() tokens.Handler {
	if p.real == nil {
		p.real = all.New().ByName(p.typ)
	}
	return p.real
}

func (p *plug) Options() []tokens.Option {
	if like := p.like(); like != nil {
		return like.Options()
	}
	return nil
}

func (p *plug) KeyFile() *tokens.KeyFileUse {
	if user, ok := p.like().(tokens.KeyFileUser); ok {
		return user.KeyFile()
	}
	return nil
}

func (p *plug) Type() string                                     { return "systemd-" + p.typ }
func (p *plug) Name() string                                     { return p.typ }
func (p *plug) Describe(luks2.Token) (tokens.Description, error) { return tokens.Description{}, nil }
func (p *plug) Subsystems() []string                             { return []string{p.typ + "-subsystem"} }
func (p *plug) step() func(*tokens.UnlockRequest) error {
	return p.script[min(p.calls, len(p.script)-1)]
}
func absent(*tokens.UnlockRequest) error { return tokens.ErrNoDevice }
func opens(*tokens.UnlockRequest) error  { return nil }
func fails(err error) func(*tokens.UnlockRequest) error {
	return func(*tokens.UnlockRequest) error { return err }
}
func tokenFails(id int, err error) error { return &tokens.TokenError{ID: id, Type: "x", Err: err} }

func (p *plug) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	if p.asks {
		if _, err := ui.Ask(ctx, tokens.Prompt{}); err != nil {
			return nil, err
		}
	}
	var ids []int
	for _, t := range req.Tokens {
		ids = append(ids, t.ID)
	}
	p.seen = append(p.seen, ids)
	p.keyData = append(p.keyData, string(req.KeyData.Bytes()))
	err := p.step()(req)
	p.calls++
	if err != nil {
		return nil, err
	}
	passphrase := secret.Copy([]byte(cmp.Or(p.passphrase, "right")))
	tok := luks2.Token{ID: -1}
	if len(req.Tokens) > 0 {
		tok = req.Tokens[0]
	}
	if err := req.Opens(ctx, tok, passphrase); err != nil {
		passphrase.Wipe()
		return nil, err
	}
	return &tokens.Unlocked{Token: tok, Passphrase: passphrase}, nil
}

// screen is a UI that notes what it shows.
type screen struct {
	mu    sync.Mutex
	shown []string
	notes []string
	open  int
	// takes is how long the person takes for an answer; 0: there is none.
	takes time.Duration
}

func (s *screen) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	if s.takes == 0 {
		return secret.Secret{}, tokens.ErrNoPrompt
	}
	time.Sleep(s.takes)
	return secret.Secret{}, nil
}

func (s *screen) Show(text string) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = append(s.shown, text)
	s.open++
	return func() { s.mu.Lock(); defer s.mu.Unlock(); s.open-- }
}
func (s *screen) Note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, text)
}

// opensRight is a volume whose passphrase is "right", on keyslot 3.
func opensRight(_ context.Context, passphrase secret.Secret, slots []int) (*contest.Found, error) {
	if string(passphrase.Bytes()) != "right" {
		return nil, luks2.ErrNoKey
	}
	return &contest.Found{Key: secret.Copy([]byte("volume key")), Slot: 3, Token: -1}, nil
}

// eventsAt sends events at times after the subscription.
func eventsAt(times ...time.Duration) watchFunc {
	return func(ctx context.Context, _ ...string) (<-chan struct{}, error) {
		c := make(chan struct{}, 1)
		for _, at := range times {
			time.AfterFunc(at, func() {
				select {
				case c <- struct{}{}:
				case <-ctx.Done():
				}
			})
		}
		return c, nil
	}
}

func twoTokens() []luks2.Token {
	return []luks2.Token{{ID: 0, Keyslots: []int{3}}, {ID: 1, Keyslots: []int{4}}}
}
