package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// choice is the key to enrol.
type choice struct {
	device wire.Token
	key    *publicKey
	// stored is the URI for the token in the header: what the user said about the
	// security device or else what identifies it, and the key. Without the former,
	// systemd would unlock with the first token that it finds, such as the
	// certificates of p11-kit, and give up (measured with 252).
	stored uri
}

// maxNamed bounds how many keys an error lists.
const maxNamed = 6

// choose finds the one key that the options mean. It reads public objects only and
// needs the PIN just for tokens that hide these, too.
func (r *run) choose(ctx context.Context) (*choice, error) {
	wanted := uri{}
	if r.h.TokenURI != "" && r.h.TokenURI != auto {
		var err error
		if wanted, err = parseURI(r.h.TokenURI); err != nil {
			return nil, tokens.Usagef("the URI to enrol %w", err)
		}
	}
	r.useAdmin(wanted)
	s, err := r.h.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	var devices []*wire.Token
	for _, device := range usable(list.Tokens) {
		if wanted.matchesToken(device) {
			devices = append(devices, device)
		}
	}
	keys, err := r.keysOf(ctx, s, devices, wanted)
	if err != nil {
		return nil, err
	}
	return one(keys, wanted, list.Tokens)
}

// keysOf lists the suitable keys of tokens that a URI selects; at least one, or
// the error says why there is none.
func (r *run) keysOf(ctx context.Context, s *session, devices []*wire.Token, wanted uri) ([]deviceKey, error) {
	if len(devices) == 0 {
		return nil, tokens.WithHint(fmt.Errorf("%w: no PKCS#11 token that matches", tokens.ErrNoDevice),
			"see what is plugged in: cryptenroll --pkcs11-token-uri=list")
	}
	var all []deviceKey
	var reasons []string
	for _, device := range devices {
		if len(devices) == 1 {
			if err := r.uncover(ctx, s, device); err != nil {
				return nil, err
			}
		}
		keys, why, err := s.suitableKeys(ctx, device, wanted)
		switch {
		case err != nil && (len(devices) == 1 || s.broken || ctx.Err() != nil):
			return nil, err
		case err != nil: // another one may do
			why = append(why, deviceName(device)+" cannot be read: "+err.Error())
		}
		for _, key := range keys {
			all = append(all, deviceKey{device, key})
		}
		reasons = append(reasons, why...)
	}
	if len(all) == 0 {
		return nil, noKey(devices, reasons)
	}
	return all, nil
}

// uncover logs into a token that shows nothing at all without a PIN.
func (r *run) uncover(ctx context.Context, s *session, device *wire.Token) error {
	shown, err := s.publicKeys(ctx, device.Slot, uri{})
	if err != nil || len(shown) > 0 || !device.LoginRequired {
		return err
	}
	return r.login(ctx, s, device)
}

func noKey(devices []*wire.Token, reasons []string) error {
	names := make([]string, len(devices))
	for i, device := range devices {
		names[i] = deviceName(device)
	}
	text := fmt.Sprintf("no public key or certificate of RSA %d to %d bits or P-256, P-384, P-521 that matches on %s",
		minRSA, maxRSA, strings.Join(names, ", "))
	if len(reasons) > 0 {
		text += " (there is: " + strings.Join(reasons[:min(len(reasons), maxNamed)], ", ") + ")"
	}
	return tokens.WithHint(errors.New(text), "docs/piv.md says how to make a key and its certificate")
}

// one wants the choice to be unique.
func one(keys []deviceKey, wanted uri, present []wire.Token) (*choice, error) {
	device := keys[0].device
	if len(keys) == 1 {
		stored := deviceURI(device, present)
		if wanted.namesToken() {
			stored = wanted.onlyToken()
		}
		stored = stored.withObject(keys[0].key).with(attrType, []byte("private"))
		return &choice{device: *device, key: keys[0].key, stored: stored}, nil
	}
	kind, names := tokens.ErrUsage, []string{}
	for _, k := range keys {
		if k.device != device {
			kind = tokens.ErrSeveralDevices
		}
		names = append(names, fmt.Sprintf("%s %s", deviceURI(k.device, present).withObject(k.key), k.key))
	}
	slices.Sort(names) // tokens list their objects in any order
	example, _, _ := strings.Cut(names[0], " ")
	return nil, tokens.WithHint(fmt.Errorf("%w: %d keys match: %s", kind, len(keys), strings.Join(names[:min(len(names), maxNamed)], "; ")),
		"name the key: --pkcs11-token-uri='"+example+"'")
}

// onlyToken keeps what a URI says about the token.
func (u uri) onlyToken() uri {
	n := uri{}
	for _, name := range writtenOrder[:tokenAttributes] {
		if value, ok := u.attrs[name]; ok {
			n = n.with(name, []byte(value))
		}
	}
	return n
}
