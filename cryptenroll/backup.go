package main

import (
	"github.com/spf13/cobra"
)

func (a *app) backupCommand() *cobra.Command {
	c := a.command("backup DEVICE FILE", "Copy the header with all keyslots to a new file", []section{a.commonSection()},
		func(cmd *cobra.Command, args []string) error {
			p, err := a.openVolume(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			if err := p.device.Backup(cmd.Context(), args[1]); err != nil {
				return err
			}
			a.msg.Err.Linef("Header of %s copied to %s. Whoever has it and one of today's keys can open the volume, "+
				"also after the key was wiped: keep it safe.", args[0], args[1])
			return nil
		})
	c.Args = arguments(2, 2)
	return c
}
