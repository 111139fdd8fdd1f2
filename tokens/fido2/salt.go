package fido2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"luksmith/internal/socket"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// salt makes the salt of a new enrolment, or reads it. The caller wipes it.
func (h *Handler) salt(ctx context.Context, uuid string) (secret.Secret, error) {
	if h.SaltFile == "" {
		return secret.Random(SaltSize), nil
	}
	in, err := openSalt(ctx, h.SaltFile, uuid)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("opening the salt file: %w", err)
	}
	defer in.Close()
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	s, err := secret.Read(in, SaltSize)
	switch {
	case ctx.Err() != nil:
		s.Wipe()
		return secret.Secret{}, context.Cause(ctx)
	case errors.Is(err, secret.ErrTooLong):
		return secret.Secret{}, tokens.Usagef("salt file %s has more than %d bytes", h.SaltFile, SaltSize)
	case err != nil:
		return secret.Secret{}, fmt.Errorf("reading the salt file: %w", err)
	case s.Len() != SaltSize:
		s.Wipe()
		return secret.Secret{}, tokens.Usagef("salt file %s has fewer than %d bytes", h.SaltFile, SaltSize)
	}
	return s, nil
}

// openSalt opens a file, or connects to a socket in the way that tells the server
// what for (systemd 257 src/shared/libfido2-util.c, fido2_read_salt_file).
func openSalt(ctx context.Context, path, uuid string) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		// Not to wait for the other end of a pipe that nobody opens.
		return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	name := fmt.Sprintf("@%x/cryptenroll-fido2-salt/%s", rand.Uint64(), uuid)
	return socket.Dial(ctx, socket.Unix(path), socket.Unix(name))
}
