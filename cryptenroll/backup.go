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
	if a.options.json.On() {
		return a.out.JSON(a.options.json, backupView{v.place(), v.header.UUID, file})
	}
	a.msg.Err.Linef("%s", copiedText(file))
	return nil
}

// copiedText says what a copy of the header is.
func copiedText(file string) string {
	return "Header copied to " + file + ". With it, today's keys open the volume even after they are wiped."
}

// backupView is backup --json.
type backupView struct {
	placeView
	UUID   string `json:"uuid"`
	Backup string `json:"backup"`
}
