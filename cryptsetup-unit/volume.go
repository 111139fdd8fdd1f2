package main

import (
	"context"
	"errors"
	"fmt"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// volume is a device whose header was read: LUKS2, or LUKS1. Its device
// is held open, so that header, key and mapping come from it, whatever its path means
// meanwhile.
type volume struct {
	device *luks2.Device
	uuid   string
	label  string
	tokens []luks2.Token
	header *luks2.Header // nil for LUKS1
	// mapping is what the header says about it; name, device, key and the flags of
	// crypttab are added.
	mapping *dmcrypt.Request
	// open computes the volume key from one keyslot or, with luks2.AnySlot, from
	// those that a passphrase may open. A passphrase that fits none gives
	// luks2.ErrNoKey.
	open func(ctx context.Context, slot int, passphrase secret.Secret) (*luks2.VolumeKey, error)
	// confirm reads the header again and reports whether a key of open still belongs
	// to it.
	confirm func(context.Context, *luks2.VolumeKey) error
	// reserve finds the memory for open in the background, until release.
	reserve func() (release func())
	// noun is what a person can be asked for, "" when no keyslot is for people.
	noun noun
}

// noun names what opens a volume in prompts.
type noun string

// The nouns, as systemd's.
const (
	nounNone       noun = ""
	nounPassphrase noun = "passphrase"
	nounRecovery   noun = "recovery key"
	nounBoth       noun = "passphrase or recovery key"
)

// openVolume reads and checks the header of a volume. It fails if the volume cannot
// be mapped here, whoever has the key.
func openVolume(ctx context.Context, d *luks2.Device, types tokens.Set) (*volume, error) {
	h, err := d.Header(ctx)
	if errors.Is(err, luks2.ErrLUKS1) {
		return openLUKS1(d)
	}
	if err != nil {
		return nil, headerError(err)
	}
	mapping, err := dmcrypt.FromHeader(h)
	if err != nil {
		return nil, fmt.Errorf("header of %s: %w", d.HeaderPath(), err)
	}
	return &volume{device: d, uuid: h.UUID, label: h.Label, tokens: h.Heeded(), header: h, mapping: mapping, open: d.OpenKeyslot,
		confirm: func(ctx context.Context, key *luks2.VolumeKey) error { return d.Confirm(ctx, h, key) },
		reserve: func() func() { return d.Reserve(h) }, noun: nounOf(h, types)}, nil
}

// openLUKS1 is openVolume for the older format, which knows no tokens.
func openLUKS1(d *luks2.Device) (*volume, error) {
	v, err := dmcrypt.OpenLUKS1(d)
	if err != nil {
		return nil, err
	}
	n := nounNone
	if len(v.Slots()) > 0 {
		n = nounPassphrase
	}
	return &volume{device: d, uuid: v.UUID, confirm: func(ctx context.Context, _ *luks2.VolumeKey) error { return v.Confirm(ctx) }, mapping: v.Request(), open: v.OpenKeyslot, reserve: nothingReserved, noun: n}, nil
}

func nothingReserved() func() { return func() {} }

// headerError adds the sentinel where the device is the wrong one.
func headerError(err error) error {
	if _, malformed := errors.AsType[*luks2.FormatError](err); malformed || errors.Is(err, luks2.ErrNotLUKS2) {
		return fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	return err
}

// nounOf says what a person can type to open the volume: systemd's rule
// (check_registered_passwords), but for the keyslots of the data segment only.
func nounOf(h *luks2.Header, types tokens.Set) noun {
	typed := map[noun]bool{}
	for _, k := range h.Keyslots {
		if h.OpensData(k.ID) {
			typed[nounOfSlot(h.TokensOf(k.ID), types)] = true
		}
	}
	switch {
	case typed[nounPassphrase] && typed[nounRecovery]:
		return nounBoth
	case typed[nounPassphrase]:
		return nounPassphrase
	case typed[nounRecovery]:
		return nounRecovery
	}
	return nounNone
}

// nounOfSlot is what a person types for a keyslot that these tokens name. What a type
// without Unlock made is typed; a token that nobody here knows says nothing.
func nounOfSlot(named []luks2.Token, types tokens.Set) noun {
	n := nounPassphrase
	for _, t := range named {
		h := types.ByType(t.Type)
		if h == nil {
			continue
		}
		if _, device := h.(tokens.Unlocker); !device {
			return nounRecovery
		}
		n = nounNone
	}
	return n
}
