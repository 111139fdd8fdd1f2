package recovery

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// maxKeyFile is far more than a key with any white space around it.
const maxKeyFile = 4096

// minDistinct letters are in 64 random ones except once in 10^15 keys; a key with
// fewer was typed, not generated.
const minDistinct = 9

// readKeyFile reads a key that was generated elsewhere. A pipe will do, such as
// the shell's <(…), and ends with ctx. shared says that other users may read the
// file.
func readKeyFile(ctx context.Context, path string) (key secret.Secret, shared bool, err error) {
	// O_NONBLOCK: opening a pipe that nobody writes to must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return secret.Secret{}, false, fmt.Errorf("opening recovery key file: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := secret.Read(f, maxKeyFile)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return secret.Secret{}, false, fmt.Errorf("reading recovery key file %s: %w", path, err)
	}
	defer text.Wipe()
	key, err = Parse(text)
	if err == nil && !random(key) {
		key.Wipe()
		err = &ParseError{Reason: "the key is not random"}
	}
	if err != nil {
		return secret.Secret{}, false, fmt.Errorf("reading recovery key file %s: %w", path, err)
	}
	info, err := f.Stat()
	return key, err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0, nil
}

// random reports whether a key can have come from a random generator.
func random(key secret.Secret) bool {
	distinct := 0
	secret.Do(func() {
		for i := range len(Alphabet) {
			if bytes.IndexByte(key.Bytes(), Alphabet[i]) >= 0 {
				distinct++
			}
		}
	})
	return distinct >= minDistinct
}
