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
	if at.types.areNamed() {
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
	for _, h := range at.types.all {
		unlocker, ok := h.(tokens.Unlocker)
		asked := at.types.asksFor(h)
		if !ok || at.types.areNamed() && !asked || !at.types.areNamed() && at.job.entry.Key.Path != "" {
			continue
		}
		if err := at.types.refused[h.Name()]; err != nil {
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
		case asked && !at.types.isFactor(h.Name()):
			missing = append(missing, failedWay{h.Name() + " token", fmt.Errorf("the header has no %s token", h.Type())})
		}
	}
	return types, missing
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
