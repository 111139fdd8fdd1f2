package sheet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Program is the file name of the helper that draws sheets.
const Program = "luksmith-sheet"

// MethodDraw is the one method of the helper. It takes [DrawParams] and, as the only
// secret, the key; the secrets of the answer are the file, in order.
const MethodDraw = "draw"

// DrawParams says what to draw. The Key of the sheet is not in there.
type DrawParams struct {
	Sheet  Sheet  `json:"sheet"`
	Format Format `json:"format"`
}

// How long the helper may take. It needs a fraction of a second; a busy machine
// with little memory may be a hundred times slower.
const (
	startLimit = 30 * time.Second
	drawLimit  = time.Minute
)

// connector starts a session with the helper.
type connector func(context.Context) (helper.Conn, error)

func start(ctx context.Context) (helper.Conn, error) {
	p, err := helper.Start(ctx, Program)
	if err != nil {
		return nil, err // and not p, whose nil would not be one as a Conn
	}
	return p, nil
}

// open starts the helper within a time of our own.
func (start connector) open(ctx context.Context) (helper.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := start(limited)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("starting %s: %w", Program, context.Cause(ctx))
	case errors.Is(err, helper.ErrNotInstalled):
		return nil, tokens.WithHint(&notInstalledError{err}, fmt.Sprintf("install %s of the same version, or leave out --recovery-sheet=", Program))
	}
	return nil, err
}

// notInstalledError is [tokens.ErrNotBuilt] in words that fit: a sheet is not a token.
type notInstalledError struct{ cause error }

func (e *notInstalledError) Error() string {
	reason := strings.TrimPrefix(e.cause.Error(), helper.ErrNotInstalled.Error()+": ")
	return fmt.Sprintf("recovery sheets are not installed (%s)", reason)
}

func (e *notInstalledError) Unwrap() []error { return []error{tokens.ErrNotBuilt, e.cause} }

// draw has the helper draw a page and returns the file in pieces, which the caller
// wipes.
func draw(ctx context.Context, conn helper.Conn, s *Sheet, f Format) ([]secret.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, drawLimit)
	defer cancel()
	file, err := conn.Call(ctx, helper.Call{
		Method:  MethodDraw,
		Params:  DrawParams{Sheet: s.cut(), Format: f},
		Secrets: []secret.Secret{s.Key},
	}, nil)
	if err == nil && len(file) == 0 {
		err = errors.New(Program + " sent no file")
	}
	return file, err
}

// maxText is more bytes of a text than the page shows or a path may have
// (PATH_MAX), and few enough that a request stays within [helper.MaxJSON].
const maxText = 4096

// cut returns a copy for the helper, its texts cut to a length that can be sent.
func (s *Sheet) cut() Sheet {
	c := *s
	for _, text := range []*string{&c.UUID, &c.Label, &c.Device, &c.Header, &c.Host, &c.Name} {
		*text = (*text)[:min(len(*text), maxText)]
	}
	return c
}
