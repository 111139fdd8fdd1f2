package fido2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// auto reports whether a value leaves the choice of the key to us.
func auto(value string) bool { return value == "" || value == "auto" }

// isPath tells paths from names.
func isPath(value string) bool { return strings.HasPrefix(value, "/") }

// devices returns the device that a path names, else all that are plugged in. The
// caller closes the result.
func (h *Handler) devices(ctx context.Context, value string) (*inventory, error) {
	found, err := h.list(ctx)
	if err != nil || !isPath(value) {
		return found, err
	}
	if i := slices.IndexFunc(found.devices, func(d wire.Device) bool { return d.Path == value }); i >= 0 {
		found.devices = found.devices[i : i+1]
	} else {
		// Not on the list: a link to a device, or one that the list leaves out.
		found.devices = []wire.Device{{Path: value}}
	}
	return found, nil
}

// keys are the open keys of one call.
type keys struct {
	list []*key
	// problems are what was wrong with the devices that are not in the list.
	problems []error
}

func (ks *keys) close() {
	for _, k := range ks.list {
		k.close()
	}
}

// openKeys opens the device that a value names, or every one, as far as they can
// derive secrets. An error means that the call is over.
func (h *Handler) openKeys(ctx context.Context, value string, ui tokens.UI) (*keys, error) {
	found, err := h.devices(ctx, value)
	if err != nil {
		return nil, err
	}
	defer found.close()
	ks := &keys{}
	for _, d := range found.devices {
		client, err := found.session(ctx, h)
		if err != nil {
			ks.close()
			return nil, err
		}
		k, err := h.open(ctx, client, d, ui)
		switch {
		case ctx.Err() != nil:
			if k != nil {
				k.close()
			}
			ks.close()
			return nil, context.Cause(ctx)
		case err != nil:
			ks.problems = append(ks.problems, fmt.Errorf("%s: %w", printable(d.Path, maxName), err))
		case !k.hasHMACSecret():
			ks.problems = append(ks.problems, fmt.Errorf("%s: %s lacks the hmac-secret extension", printable(d.Path, maxName), k.name))
			k.close()
		default:
			ks.list = append(ks.list, k)
		}
	}
	return ks, nil
}

// only closes all keys but one and returns that.
func (ks *keys) only(chosen *key) *key {
	for _, k := range ks.list {
		if k != chosen {
			k.close()
		}
	}
	return chosen
}

// chooseKey opens the key to enrol. The caller closes it.
func (h *Handler) chooseKey(ctx context.Context, reqs []*tokens.EnrollRequest, ui tokens.UI) (*key, error) {
	ks, err := h.openKeys(ctx, h.Device, ui)
	if err != nil {
		return nil, err
	}
	k, err := h.choose(ctx, ks, reqs, ui)
	if err != nil {
		ks.close()
		return nil, err
	}
	return ks.only(k), nil
}

func (h *Handler) choose(ctx context.Context, ks *keys, reqs []*tokens.EnrollRequest, ui tokens.UI) (*key, error) {
	candidates := ks.list
	if !auto(h.Device) && !isPath(h.Device) {
		var err error
		if candidates, err = named(ctx, h.Device, ks.list, reqs); err != nil {
			return nil, err
		}
	}
	switch {
	case len(candidates) == 1:
		return candidates[0], nil
	case len(ks.list) == 0 && len(ks.problems) > 0:
		return nil, noKey(ks.problems)
	case len(ks.list) == 0:
		return nil, nonePluggedIn()
	case len(candidates) == 0:
		return nil, fmt.Errorf("%w: no key is called %q; plugged in: %s", tokens.ErrNoDevice, printable(h.Device, maxName), places(ks.list))
	}
	fresh, err := notEnrolled(ctx, candidates, reqs)
	if err != nil {
		return nil, err
	}
	if len(fresh) == 1 {
		ui.Note(fmt.Sprintf("Of the keys that are plugged in only %s at %s is not enrolled yet.", fresh[0].name, printable(fresh[0].device.Path, maxName)))
		return fresh[0], nil
	}
	return nil, fmt.Errorf("%w: %s", tokens.ErrSeveralDevices, places(ks.list))
}

// noKey is the error when none of the devices can be used. It is ErrNoDevice only
// if they went away.
func noKey(problems []error) error {
	return fmt.Errorf("finding a FIDO2 key: %w", errors.Join(problems...))
}

// named returns the keys that hold the credential of a token with that label, or
// else those with that product name.
func named(ctx context.Context, name string, list []*key, reqs []*tokens.EnrollRequest) ([]*key, error) {
	var byLabel, byProduct []*key
	for _, k := range list {
		if strings.EqualFold(k.name, name) || strings.EqualFold(k.device.Product, name) {
			byProduct = append(byProduct, k)
		}
		held, err := k.enrolled(ctx, reqs, func(p *parameters) bool { return p.label == name })
		if err != nil {
			return nil, err
		}
		if held != nil {
			byLabel = append(byLabel, k)
		}
	}
	if len(byLabel) > 0 {
		return byLabel, nil
	}
	return byProduct, nil
}

// notEnrolled returns the keys that hold no credential of the volumes.
func notEnrolled(ctx context.Context, list []*key, reqs []*tokens.EnrollRequest) ([]*key, error) {
	var fresh []*key
	for _, k := range list {
		held, err := k.enrolled(ctx, reqs, func(*parameters) bool { return true })
		if err != nil {
			return nil, err
		}
		if held == nil {
			fresh = append(fresh, k)
		}
	}
	return fresh, nil
}
