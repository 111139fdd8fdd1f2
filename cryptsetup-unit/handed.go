package main

import (
	"context"
	"sync"

	"luksmith/internal/contest"
	"luksmith/luks2/secret"
)

// handed holds the volume key that a passphrase gave which a person typed where a PIN
// was wanted: the way with the tokens returns it, and the device never sees the text.
type handed struct {
	try   tryFunc
	noun  noun
	share func(passphrase secret.Secret) // with other volumes
	mu    sync.Mutex
	found *contest.Found
	over  bool // nobody takes it any more
}

// isPassphrase implements askpass.Options.IsPassphrase.
func (h *handed) isPassphrase(ctx context.Context, typed secret.Secret) bool {
	f, err := h.try(ctx, typed, nil)
	if err != nil {
		return false
	}
	f.By = string(h.noun) + " typed for a PIN"
	h.put(f)
	h.share(typed)
	return true
}

func (h *handed) put(f *contest.Found) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.found != nil {
		f.Key.Wipe()
		return
	}
	h.found = f
}

// take returns the key, nil without one.
func (h *handed) take() *contest.Found {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.found
	h.found = nil
	return f
}

// close wipes a key that nobody took.
func (h *handed) close() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.found != nil {
		h.found.Key.Wipe()
		h.found = nil
	}
}
