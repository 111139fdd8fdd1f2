package main

import (
	"context"
	"fmt"
	"slices"

	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// tokenWays returns the one way with all token types that may be used, if any.
func (at *attempt) tokenWays() []contest.Way {
	types, missing := at.tokenTypes()
	if len(types) == 0 {
		at.releaseLatch()
		return missing
	}
	given := at.newHanded()
	people := at.askerWith(given)
	w := &tokenWay{types: types, handed: given, ui: people, try: at.opener.try, watch: at.as.devices.watch,
		volume: tokens.Volume{UUID: at.volume.uuid, Device: at.device, Label: at.volume.label, Name: at.job.entry.Name, Tokens: at.volume.tokens}}
	if pins := at.newPinsInTurn(people); pins != nil {
		w.ui, w.pins = pins, pins
	}
	if len(at.asked) > 0 {
		w.wait = at.job.options.TokenTimeout
	} else if au := at.as.automatic; au != nil {
		w.wait = au.limit
	}
	if !at.asks() && at.as.automatic == nil {
		w.patience = at.job.options.TokenTimeout
	}
	return append(missing, releasingWay{w, at.releaseLatch})
}

// tokenTypes are the types that may be used: those that crypttab asks for or, where it
// names no key either, all. missing says which of them the header does not have.
func (at *attempt) tokenTypes() (types []*tokenType, missing []contest.Way) {
	for _, h := range at.handlers {
		unlocker, ok := h.(tokens.Unlocker)
		asked := slices.Contains(at.asked, h.Name())
		if !ok || len(at.asked) > 0 && !asked || len(at.asked) == 0 && at.job.entry.Key.Path != "" {
			continue
		}
		if err := at.refused[h.Name()]; err != nil {
			missing = append(missing, failedWay{h.Name() + " token", err})
			continue
		}
		t := &tokenType{handler: unlocker, tokens: at.candidates(h.Type())}
		if asked {
			t.keyData = at.keyData(h)
		}
		switch {
		case len(t.tokens) > 0 || t.keyData != nil:
			types = append(types, t)
		case asked && !at.isFactor(h.Name()):
			missing = append(missing, failedWay{h.Name() + " token", fmt.Errorf("the header has no %s token", h.Type())})
		}
	}
	return types, missing
}

// isFactor reports whether a type that crypttab names may be there for a combination
// that it names as well.
func (at *attempt) isFactor(name string) bool {
	return slices.ContainsFunc(at.handlers, func(h tokens.Handler) bool {
		c, ok := h.(tokens.Combiner)
		return ok && slices.Contains(at.asked, h.Name()) && c.UnlocksWith(name)
	})
}

// candidates are the tokens of a type, within key-slot=.
func (at *attempt) candidates(tokenType string) (list []luks2.Token) {
	only := at.job.slots()
	for _, t := range at.volume.tokens {
		if t.Type == tokenType && (only == nil || slices.Contains(t.Keyslots, only[0])) {
			list = append(list, t)
		}
	}
	return list
}

// configure hands the options of the token types to their handlers, and notes the types
// that crypttab asks for and those that refuse what it says.
func (at *attempt) configure() {
	at.refused = map[string]error{}
	for _, h := range at.handlers {
		if err := at.setOptions(h); err != nil {
			at.refused[h.Name()] = err
		}
		if slices.Contains(at.job.options.Types, h.Name()) {
			at.asked = append(at.asked, h.Name())
		}
	}
}

// setOptions gives a handler what crypttab says about its type. An error is about a
// value that systemd takes and the handler cannot use; the parser of crypttab, which
// asks the same handlers, has left out all others. It costs the tokens of the type.
func (at *attempt) setOptions(h tokens.Handler) error {
	for _, o := range h.Options() {
		if o.Place&tokens.Crypttab == 0 {
			continue
		}
		for _, w := range at.job.options.Words {
			if w.Name != o.Name {
				continue
			}
			if err := o.Set(w.Value); err != nil {
				return at.job.entry.Errorf("options: "+w.String(), "%w", err)
			}
		}
	}
	return nil
}

// keyFileIsData reports whether the key file is certainly for a token type that was
// asked for: a salt is tried as passphrase of no keyslot.
func (at *attempt) keyFileIsData() bool {
	return slices.ContainsFunc(at.handlers, func(h tokens.Handler) bool {
		user, ok := h.(tokens.KeyFileUser)
		if !ok || !slices.Contains(at.asked, h.Name()) || at.refused[h.Name()] != nil {
			return false
		}
		use := user.KeyFile()
		return use != nil && use.Alone
	})
}

// keyData returns how to read what stands in the key file instead of the header, nil
// where the header's tokens are used.
func (at *attempt) keyData(h tokens.Handler) func(context.Context) (secret.Secret, error) {
	user, ok := h.(tokens.KeyFileUser)
	if !ok || at.job.entry.Key.Path == "" {
		return nil
	}
	use := user.KeyFile()
	if use == nil {
		return nil
	}
	w := at.configuredKeyFile(peerOf(use.Server))
	if use.Whole {
		w.file.size = 0
	}
	return func(ctx context.Context) (secret.Secret, error) {
		s, err := w.read(ctx, func(bool) {})
		if err != nil {
			return s, fmt.Errorf("%s: %w", w.Name(), err)
		}
		return s, nil
	}
}
