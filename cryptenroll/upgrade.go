package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11"
)

func upgradeVerb(a *app) *cobra.Command {
	s := newSection("Upgrade")
	s.flags.StringVar(&a.options.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262; OAEP needs 261")
	return a.onDevice("pkcs11-upgrade", "Renew old forms of PKCS#11 tokens: OAEP, object URIs",
		[]section{s, a.unlockSection(tokenFlags{}), a.changeSection(), a.commonSection()}, a.upgrade).command(a)
}

// upgrade rewrites PKCS#11 tokens in place: their keyslots and passphrases stay.
func (a *app) upgrade(ctx context.Context, path string) error {
	v, err := a.openVolume(ctx, path, true)
	if err != nil {
		return err
	}
	compat, err := parseCompat(a.options.compat, a.root)
	if err != nil {
		return err
	}
	h, ex := handlerOf[*pkcs11.Handler](a.unlocking), a.executor()
	list := ex.unlocker.tokensOf(&target{volume: v}, h)
	if len(list) == 0 {
		return errors.New(v.noneText(h, luks2.AnySlot))
	}
	if a.options.dryRun {
		return v.printUpgradePlan(a, h, list, compat)
	}
	if err := ex.backUp(ctx, &outcome{plan: &plan{volume: v}}); err != nil {
		return err
	}
	auth := &upgradeAuth{types: a.unlocking, volume: v, authentic: map[int]bool{}}
	defer auth.wipe()
	upgraded, failed := h.Upgrade(ctx, &pkcs11.UpgradeRequest{Volume: v.forTokens(), Tokens: list, Compat: compat,
		Opens: auth.opens}, a.asking().asker())
	upgraded, refused := auth.vouched(ctx, ex, h, upgraded)
	failed = errors.Join(failed, refused)
	if len(upgraded) > 0 {
		if err := v.writeUpgraded(ctx, upgraded, auth); err != nil {
			return errors.Join(failed, err)
		}
	}
	if a.options.json.On() {
		view := v.viewUpgraded(upgraded)
		view.Error = errorView(failed)
		return errors.Join(failed, a.out.JSON(a.options.json, view))
	}
	for _, u := range upgraded {
		a.msg.Err.Linef("Upgraded %s of %s: %s.", v.nameOf(u.ID), v.path, upgradeText(u.Changes))
		if u.Note != "" {
			a.msg.Warning(u.Note)
		}
	}
	if len(upgraded) == 0 && failed == nil {
		a.msg.Err.Linef("No PKCS#11 token of %s needs an upgrade; nothing was written.", v.path)
	}
	return failed
}

// upgradeAuth finds out, with the volume key that a token gives, what its conditions
// are worth. One that was altered is not upgraded, and for one that nothing vouches
// for somebody has to.
type upgradeAuth struct {
	types     tokens.Set
	volume    *volume
	op        opened
	authentic map[int]bool // by token
}

func (u *upgradeAuth) opens(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
	var op opened
	if err := u.volume.unlockRequest(nil, &op).Opens(ctx, t, passphrase); err != nil {
		return err
	}
	u.wipe()
	u.op = op
	switch u.types.Standing(u.volume.header, t, op.key) {
	case tokens.Altered:
		return tokens.WithHint(fmt.Errorf("%w: it was altered since it was enrolled", cli.ErrRefused), "enrol the smartcard anew and wipe this keyslot")
	case tokens.Authentic:
		u.authentic[t.ID] = true
	}
	return nil
}

// vouched are the upgrades of tokens whose conditions the volume key, the URI on the
// command line or the person vouches for. The error is about the others, of which
// nothing is written.
func (u *upgradeAuth) vouched(ctx context.Context, ex *executor, h *pkcs11.Handler, list []pkcs11.Upgraded) (kept []pkcs11.Upgraded, failed error) {
	for _, up := range list {
		if !u.authentic[up.ID] && !h.NamesKey() {
			if err := u.ask(ctx, ex, h, up); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		u.authentic[up.ID] = true
		kept = append(kept, up)
	}
	return kept, failed
}

// ask shows what the new form of a token demands.
func (u *upgradeAuth) ask(ctx context.Context, ex *executor, h *pkcs11.Handler, up pkcs11.Upgraded) error {
	d, err := h.Describe(luks2.Token{ID: up.ID, Type: h.Type(), Raw: up.Token})
	if err != nil {
		return err
	}
	detail, _ := d.Detail.(pkcs11.Detail)
	name := u.volume.nameOf(up.ID)
	return ex.askToVouch(ctx, name, fmt.Sprintf("Nothing proves that %s still demands what it was enrolled with. The new form will open with: %s, %s. Write it?",
		name, detail.URI, strings.Join(d.Requires, ", ")), "run this on a terminal without --yes, or name the key: --unlock-pkcs11-uri="+detail.URI)
}

func (u *upgradeAuth) wipe() {
	if u.op.key != nil {
		u.op.wipe()
	}
}

// sign gives a token the MAC over what it demands now.
func (u *upgradeAuth) sign(t *luks2.Token, h *luks2.Header) error {
	k, ok := h.Keyslot(t.Keyslots[0])
	if !ok || !u.authentic[t.ID] {
		return nil
	}
	raw, err := u.types.Authenticate(t.Raw, k, u.op.key)
	t.Raw = raw
	return err
}

// writeUpgraded puts the new forms in the places of the old ones, unless those
// changed meanwhile.
func (v *volume) writeUpgraded(ctx context.Context, list []pkcs11.Upgraded, auth *upgradeAuth) error {
	return v.device.Update(ctx, func(tx *luks2.Tx) error {
		for _, u := range list {
			before, _ := v.header.Token(u.ID)
			now, ok := tx.Header().Token(u.ID)
			if !ok || string(now.Raw) != string(before.Raw) {
				return fmt.Errorf("upgrading token %d of %s: %w", u.ID, v.path, luks2.ErrChanged)
			}
			t := *now
			t.Raw = u.Token
			if err := auth.sign(&t, tx.Header()); err != nil {
				return err
			}
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

// upgradeView is pkcs11-upgrade --json.
type upgradeView struct {
	placeView
	UUID     string         `json:"uuid"`
	Upgraded []upgradedView `json:"upgraded"` // with --dry-run what would be
	Error    *cli.ErrorView `json:"error,omitempty"`
}

type upgradedView struct {
	Slot    int      `json:"slot"`
	Token   int      `json:"token"`
	Changes []string `json:"changes"`
	Note    string   `json:"note,omitempty"`
}

func (v *volume) viewUpgraded(list []pkcs11.Upgraded) upgradeView {
	view := upgradeView{placeView: v.place(), UUID: v.header.UUID, Upgraded: []upgradedView{}}
	for _, u := range list {
		view.Upgraded = append(view.Upgraded, upgradedView{v.slotOfToken(u.ID), u.ID, u.Changes, u.Note})
	}
	return view
}

// slotOfToken is the keyslot of a token, -1 without one.
func (v *volume) slotOfToken(id int) int {
	if t, ok := v.header.Token(id); ok && len(t.Keyslots) == 1 {
		return t.Keyslots[0]
	}
	return luks2.AnySlot
}

// nameOf is what people know a token by.
func (v *volume) nameOf(token int) string {
	if s, ok := v.slot(v.slotOfToken(token)); ok {
		return s.String()
	}
	return fmt.Sprintf("token %d", token)
}

// printUpgradePlan says what the tokens' descriptions promise an upgrade to do.
func (v *volume) printUpgradePlan(a *app, h tokens.Handler, list []luks2.Token, compat int) error {
	view := upgradeView{placeView: v.place(), UUID: v.header.UUID, Upgraded: []upgradedView{}}
	for _, t := range list {
		d, err := h.Describe(t)
		if err != nil {
			return err
		}
		detail, _ := d.Detail.(pkcs11.Detail)
		changes := pkcs11.Upgradable(detail.Upgrade, compat)
		if len(changes) > 0 {
			view.Upgraded = append(view.Upgraded, upgradedView{Slot: v.slotOfToken(t.ID), Token: t.ID, Changes: changes})
		}
		if !a.options.json.On() {
			a.out.Linef("%s of %s: %s", v.nameOf(t.ID), v.path, cmp.Or(upgradeText(changes), "nothing"))
		}
	}
	if a.options.json.On() {
		return a.out.JSON(a.options.json, view)
	}
	return nil
}
