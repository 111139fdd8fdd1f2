package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/escrow"
	"luksmith/tokens/recovery/qr"
	"luksmith/tokens/recovery/sheet"
)

// handout gives a new recovery key to the person. For other enrolments it does
// nothing.
type handout struct {
	app   *app
	plan  *plan
	page  *sheet.File       // reserved for --recovery-sheet=, nil without it
	maker *recovery.Handler // nil for other enrolments

	escrowFile *escrow.File     // reserved for --recovery-escrow-file=, nil without it
	envelope   *escrow.Envelope // made for --recovery-escrow=, nil without it

	// instead of printing asks whether somebody takes what is returned; nil prints.
	instead func() error

	begun bool // the JSON document, which endDocument completes
}

// refuseUnusedRecovery refuses the options of a recovery key for other enrolments.
func (o *options) refuseUnusedRecovery(e enroller) error {
	if _, ok := e.(*recovery.Handler); ok {
		return o.refuseHalfEscrow()
	}
	if o.sheet != "" || o.confirm {
		return usagef("--recovery-sheet= and --recovery-confirm go with --recovery-key")
	}
	if !o.escrow.Empty() || o.escrowFile != "" {
		return usagef("--recovery-escrow= and --recovery-escrow-file= go with --recovery-key")
	}
	return nil
}

// prepareHandout reserves the sheet's file, so that a name that is taken ends the
// command before anything is written.
func (a *app) prepareHandout(ctx context.Context, p *plan) (*handout, error) {
	maker, _ := p.enroller.(*recovery.Handler)
	h := &handout{app: a, plan: p, maker: maker}
	if (h.prints() && a.options.sheet == "" || h.printsEscrow()) && a.out.Discards() {
		return nil, tokens.WithHint(fmt.Errorf("%w: standard output goes to %s, where nobody finds the recovery key", cli.ErrRefused, os.DevNull),
			"let it go to the terminal, a file or a pipe, or add --recovery-sheet=FILE.pdf")
	}
	if err := h.reserveEscrow(); err != nil {
		return nil, err
	}
	if maker == nil || a.options.sheet == "" {
		return h, nil
	}
	page, err := sheet.Create(ctx, a.options.sheet)
	if err != nil {
		h.discard()
		return nil, err
	}
	h.page = page
	return h, nil
}

// confirms reports whether a person has to type the key back.
func (h *handout) confirms() bool { return h != nil && h.maker != nil && h.app.options.confirm }

// discard removes reserved files that were not filled.
func (h *handout) discard() {
	if h.page != nil {
		h.page.Discard()
	}
	if h.escrowFile != nil {
		h.escrowFile.Discard()
	}
}

// prints reports whether the key goes to standard output: somebody has it already
// if it came from a file, and one for escrow is shown only to be typed back.
func (h *handout) prints() bool {
	return h.maker != nil && h.maker.KeyFile == "" && (h.app.options.escrow.Empty() || h.app.options.confirm)
}

// deliver shows the key that is on the disk and proven: alone on standard output,
// everything else beside it. If the key cannot be handed out, the keyslot goes.
// All of this comes before the wipe: whatever becomes of the rest of the output,
// the key is out.
func (h *handout) deliver(ctx context.Context, out *outcome) error {
	if h.maker == nil {
		return nil
	}
	e := out.enrolled
	key := e.result.Passphrase
	if err := h.seal(e); err != nil {
		return &notHandedOut{err}
	}
	if err := h.print(out); err != nil {
		h.removeFiles()
		return &notHandedOut{fmt.Errorf("handing out the recovery key: %w", err)}
	}
	if err := h.writeSheet(ctx, key, e); err != nil {
		return err
	}
	if !h.confirms() {
		return nil
	}
	if err := confirmKey(ctx, h.app.msg, h.app.asking().asker(), key); err != nil {
		h.removeFiles()
		return &notHandedOut{err}
	}
	return nil
}

// removeFiles removes what has a key that opens nothing.
func (h *handout) removeFiles() {
	if h.page != nil {
		_ = os.Remove(h.app.options.sheet)
	}
	if h.escrowFile != nil {
		_ = os.Remove(h.app.options.escrowFile)
	}
}

// notHandedOut is the failure to hand out a key, so that nobody has it.
type notHandedOut struct{ error }

func (e *notHandedOut) Unwrap() error { return e.error }

// print shows the key, or the envelope that has it, and, if a file gets it, waits
// until it is on the disk.
func (h *handout) print(out *outcome) error {
	switch {
	case h.instead != nil:
		return h.instead()
	case !h.prints() && !h.printsEscrow():
		return nil
	case h.app.options.json.On():
		if err := h.app.reporter().beginDocument(out); err != nil {
			return err
		}
		h.begun = true
	case h.printsEscrow():
		if err := h.printEnvelope(); err != nil {
			return err
		}
	default:
		if err := h.printText(out.enrolled.result.Passphrase); err != nil {
			return err
		}
	}
	return h.app.out.Sync()
}

// printText prints the key below the QR code: what is last stays in sight on a small
// terminal.
func (h *handout) printText(key secret.Secret) error {
	a := h.app
	w := a.msg.Err
	if !a.out.Terminal {
		w.Linef("The recovery key of %s goes to the standard output. Keep it off this machine, on paper or in a safe.", h.plan.path)
		h.showQR(key)
		return recovery.Print(a.out.Raw(), key)
	}
	w.Linef("The recovery key of %s. Keep it off this machine, on paper or in a safe:", h.plan.path)
	if !h.showQR(key) {
		w.Linef("")
		defer w.Linef("")
	}
	return recovery.Print(a.out.Raw(), key)
}

// showQR draws the key for a phone's camera if somebody looks at a terminal that is
// large enough.
func (h *handout) showQR(key secret.Secret) bool {
	w := h.app.msg.Err
	if !w.Terminal || !bool(w.Colour) {
		return false
	}
	code, err := qr.New(key, qr.Screen)
	if err == nil {
		defer code.Wipe()
		columns, rows, _ := term.GetSize(int(os.Stderr.Fd()))
		err = code.WriteTerminal(w.Raw(), qr.Terminal{Columns: columns, Rows: rows, UTF8: cli.UTF8(), Colour: bool(w.Colour)})
	}
	if fit, ok := errors.AsType[*qr.FitError](err); ok {
		w.Linef("(The window is too small for the QR code: %d columns and %d rows.)", fit.NeedColumns, fit.NeedRows)
	}
	return err == nil
}

func (h *handout) writeSheet(ctx context.Context, key secret.Secret, e *enrolled) error {
	if h.page == nil {
		return nil
	}
	if err := h.page.Write(ctx, h.sheet(key, e.slot, e.result.Label)); err != nil {
		return err
	}
	h.app.msg.Err.Linef("Written for printing: %s. Delete the file once it is on paper.", filepath.Clean(h.app.options.sheet))
	return nil
}

// sheet is the page for the recovery key of a keyslot.
func (h *handout) sheet(key secret.Secret, slot int, label string) *sheet.Sheet {
	host, _ := os.Hostname()
	return &sheet.Sheet{Key: key, UUID: h.plan.header.UUID, Label: h.plan.header.Label,
		Device: h.plan.path, Header: h.app.options.header, Host: host, Keyslot: slot, Name: label,
		Created: time.Now(), Paper: sheet.UsualPaper(os.Getenv)}
}

// confirmKey asks for two groups of the key, so that nothing old is wiped before
// the key is known to be in safe hands.
func confirmKey(ctx context.Context, msg *cli.Messages, person *askpass.Asker, key secret.Secret) error {
	challenge := recovery.NewChallenge()
	for range maxTries {
		typed, err := person.Ask(ctx, tokens.Prompt{Text: challenge.Question(), Person: true})
		if err != nil {
			return fmt.Errorf("confirming the recovery key: %w", err)
		}
		err = challenge.Check(key, typed)
		typed.Wipe()
		if err == nil {
			return nil
		}
		msg.WarnError(err)
	}
	return fmt.Errorf("%w: the recovery key was not typed back", cli.ErrRefused)
}
