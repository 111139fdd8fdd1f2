package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11"
)

func (a *app) upgradeCommand() *cobra.Command {
	s := newSection("Upgrade")
	s.flags.StringVar(&a.options.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262; OAEP needs 261")
	c := a.command("pkcs11-upgrade [DEVICE]", "Renew old forms of PKCS#11 tokens: OAEP, object URIs",
		[]section{s, a.unlockSection(tokenFlags{}), a.changeSection(), a.commonSection()},
		func(cmd *cobra.Command, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			return a.upgrade(cmd.Context(), devices[0])
		})
	c.Args = arguments(0, 1)
	return c
}

// upgrade rewrites PKCS#11 tokens in place: their keyslots and passphrases stay.
func (a *app) upgrade(ctx context.Context, path string) error {
	p, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	compat, err := parseCompat(a.options.compat, a.root)
	if err != nil {
		return err
	}
	h := a.unlocking.ByName("pkcs11").(*pkcs11.Handler)
	list := a.tokensOf(p, h)
	if len(list) == 0 {
		return fmt.Errorf("%s has no PKCS#11 token that can be used here", path)
	}
	if a.options.dryRun {
		return a.printUpgradePlan(p, h, list, compat)
	}
	if err := a.backUp(ctx, &outcome{plan: p}); err != nil {
		return err
	}
	upgraded, failed := h.Upgrade(ctx, &pkcs11.UpgradeRequest{Volume: p.volume(), Tokens: list, Compat: compat,
		Opens: a.unlockRequest(p, list, nil).Opens}, a.asker())
	if len(upgraded) > 0 {
		if err := a.writeUpgraded(ctx, p, upgraded); err != nil {
			return errors.Join(failed, err)
		}
	}
	for _, u := range upgraded {
		a.msg.Err.Linef("Token %d of %s was upgraded: %s.", u.ID, path, upgradeText(u.Changes))
		if u.Note != "" {
			a.msg.Warning(u.Note)
		}
	}
	if len(upgraded) == 0 && failed == nil {
		a.msg.Err.Linef("No PKCS#11 token of %s needs an upgrade; nothing was written.", path)
	}
	return failed
}

// writeUpgraded puts the new forms in the places of the old ones, unless those
// changed meanwhile.
func (a *app) writeUpgraded(ctx context.Context, p *plan, list []pkcs11.Upgraded) error {
	return p.device.Update(ctx, func(tx *luks2.Tx) error {
		for _, u := range list {
			before, _ := p.header.Token(u.ID)
			now, ok := tx.Header().Token(u.ID)
			if !ok || string(now.Raw) != string(before.Raw) {
				return fmt.Errorf("upgrading token %d of %s: %w", u.ID, p.path, luks2.ErrChanged)
			}
			t := *now
			t.Raw = u.Token
			if err := tx.ReplaceToken(u.ID, t); err != nil {
				return err
			}
		}
		return nil
	})
}

// upgradeText spells the words of pkcs11.Detail.Upgrade out.
func upgradeText(changes []string) string {
	texts := make([]string, len(changes))
	for i, change := range changes {
		texts[i] = map[string]string{"padding": "OAEP instead of PKCS#1 v1.5", "uri": "a URI that systemd takes"}[change]
	}
	return strings.Join(texts, ", ")
}

// printUpgradePlan says what the tokens' descriptions promise an upgrade to do.
func (a *app) printUpgradePlan(p *plan, h tokens.Handler, list []luks2.Token, compat int) error {
	for _, t := range list {
		d, err := h.Describe(t)
		if err != nil {
			return err
		}
		text := "nothing"
		detail, _ := d.Detail.(pkcs11.Detail)
		if changes := pkcs11.Upgradable(detail.Upgrade, compat); len(changes) > 0 {
			text = upgradeText(changes)
		}
		a.out.Linef("token %d of %s: %s", t.ID, p.path, text)
	}
	return nil
}
