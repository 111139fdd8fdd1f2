package main

import (
	"context"

	"github.com/spf13/cobra"
)

func backupVerb(a *app) *cobra.Command {
	return verb{use: "backup DEVICE FILE", short: "Copy the header with all keyslots to a new file",
		sections: []section{a.commonSection()}, least: 2, most: 2,
		run: func(ctx context.Context, args []string) error { return a.backup(ctx, args[0], args[1]) }}.command(a)
}

func (a *app) backup(ctx context.Context, path, file string) error {
	v, err := a.openVolume(ctx, path, false)
	if err != nil {
		return err
	}
	if err := v.device.Backup(ctx, file); err != nil {
		return err
	}
	a.msg.Err.Linef("Header of %s copied to %s. Whoever has it and one of today's keys can open the volume, "+
		"also after the key was wiped: keep it safe.", path, file)
	return nil
}
