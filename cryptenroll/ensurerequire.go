package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"luksmith/internal/cli"
	"luksmith/internal/spec"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootchain/efi"
)

// requirement reports whether the machine has what is required; if not, it is an error
// or what requires it is skipped.
func (r *ensureRun) requirement(ctx context.Context, want *spec.Require) (skip bool, err error) {
	if want == nil {
		return false, nil
	}
	for _, need := range want.Needs {
		there, err := r.has(ctx, need)
		if err == nil && !there {
			err = fmt.Errorf("%w: %s", cli.ErrRefused, map[bool]string{true: "Secure Boot is off", false: "no device of type " + need + " is there"}[need == spec.SecureBoot])
		}
		switch {
		case err == nil:
		case want.Skip && ctx.Err() == nil:
			return true, nil
		default:
			return false, want.Wrap(err)
		}
	}
	return false, nil
}

// has reports whether a security device is there, or Secure Boot on.
func (r *ensureRun) has(ctx context.Context, need string) (bool, error) {
	if need == spec.SecureBoot {
		on, err := efi.Variables{FS: os.DirFS(r.below("sys/firmware/efi/efivars"))}.Get("SecureBoot", efi.Global)
		return err == nil && slices.Equal(on, []byte{1}), nil
	}
	lister, _ := r.app.types().ByName(need).(tokens.DeviceLister)
	table, err := lister.Devices(ctx)
	return err == nil && len(table.Rows) > 0, err
}
