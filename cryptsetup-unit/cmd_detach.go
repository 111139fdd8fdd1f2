package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"luksmith/crypttab"
	"luksmith/luks2/dmcrypt"
)

// detachVerb is detach VOLUME. As in systemd a volume that is not attached is fine,
// and one that is in use goes when its last user does.
func detachVerb() ([]flag, func(*app, []string) error) {
	return nil, func(a *app, args []string) error { return a.detach(args[0]) }
}

func (a *app) detach(name string) error {
	name = crypttab.Unescape(name) // see entry
	if err := crypttab.CheckName(name); err != nil {
		return err
	}
	deferred, err := dmcrypt.Detach(a.ctx, name, &dmcrypt.DetachOptions{Deferred: true})
	switch {
	case errors.Is(err, dmcrypt.ErrNotActive), errors.Is(err, dmcrypt.ErrUnsupported): // no device-mapper, no mapping
		a.msg.Err.Linef("%s is not attached.", name)
	case err != nil:
		return fmt.Errorf("detaching %s: %w", name, busyOrNot(err))
	case deferred:
		a.msg.Err.Linef("%s is in use; it goes when it is closed.", name)
		return nil // and its report with the next run
	}
	if err := os.Remove(reportPath(a.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.msg.Warning(fmt.Sprintf("removing the report of %s: %v", name, err))
	}
	return nil
}
