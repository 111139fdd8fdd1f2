package tpm2

import (
	"context"

	"luksmith/tokens"
)

// Enroll seals a new key and proves, from the token as it will be written, that
// it comes back.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	s, err := h.settings(req)
	if err != nil {
		return nil, err
	}
	if s.pin == PINArgon2id && h.Argon2idTime > 0 {
		if err := s.argon.benchmark(ctx, h.Argon2id, h.Argon2idTime); err != nil {
			return nil, err
		}
	}
	if s.offline != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := h.newEnrollment(s, nil, ui)
		e.prepareOffline()
		return e.make(ctx, replacement{})
	}
	c, err := h.connect(ctx, h.Device)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	e := h.newEnrollment(s, c, ui)
	if err := e.prepare(); err != nil {
		return nil, err
	}
	r := e.findReplaced()
	if r.unchanged != nil {
		return e.unchanged(r.unchanged), nil
	}
	return e.make(ctx, r)
}

// Find implements [tokens.Finder].
func (h *Handler) Find(ctx context.Context) error {
	if h.DeviceKey != "" {
		return nil // sealed without the TPM
	}
	c, err := h.connect(ctx, h.Device)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}
