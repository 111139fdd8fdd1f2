package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/durable"
	"luksmith/internal/spec"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/escrow"
	"luksmith/tokens/recovery/sheet"
)

// handsOut reports whether the recovery key of the entry is new at each enrolment and
// goes to somebody: to a file alone it goes before it is enrolled.
func (e *entry) handsOut() bool { return e.To != nil && (e.To.File == "" || e.To.Escrow != nil) }

// forVolume puts the volume's UUID into a path or an argument.
func (e *entry) forVolume(text string, v *volume) string {
	return strings.ReplaceAll(text, "{uuid}", v.header.UUID)
}

// recipients reads those of an escrow. Errors name the place in the spec.
func (e *entry) recipients() (to escrow.Recipients, err error) {
	if e.To == nil {
		return to, nil
	}
	for _, one := range e.To.Escrow {
		if err := to.Add(one.Value); err != nil {
			return to, one.Wrap(err)
		}
	}
	return to, nil
}

// handedKey enrols a new recovery key.
type handedKey struct {
	*recovery.Handler
	to *spec.Handout
}

// Plan says who gets the key.
func (h *handedKey) Plan(*tokens.EnrollRequest) (string, error) {
	switch to := h.to; {
	case to.Sheet != "":
		return "recovery key, to be printed from " + to.Sheet, nil
	case to.Command != nil:
		return "recovery key, to be handed to " + to.Command[0], nil
	case to.Terminal:
		return "recovery key, to be shown on the terminal", nil
	}
	return "recovery key, encrypted in " + h.to.File, nil
}

// delivery makes the keyslot of a recovery key that goes to somebody. Until it is
// there the keyslot has a label that says so, and a file has another name: a run that
// is ended in between leaves neither a key that nobody has under a name that promises
// one, nor the file of a key that opens nothing.
type delivery struct {
	*ensuring
	item       *item
	out        *outcome
	path, part string // of the file, empty without one
	recipients escrow.Recipients
	envelope   *escrow.File
	page       *sheet.File
}

func (e *ensuring) delivery(it *item) *delivery {
	d := &delivery{ensuring: e, item: it}
	if path := it.To.File + it.To.Sheet; path != "" {
		d.path = it.forVolume(path, e.volume)
		ext := filepath.Ext(d.path)
		d.part = strings.TrimSuffix(d.path, ext) + ".part" + ext
	}
	return d
}

// refusal is why a key could not be delivered, as far as that can be known before
// anything is written.
func (d *delivery) refusal() error {
	to := d.item.To
	switch {
	case d.path != "":
		if _, err := os.Lstat(d.path); !errors.Is(err, fs.ErrNotExist) {
			return tokens.WithHint(fmt.Errorf("%w: %s is there already", cli.ErrRefused, d.path), "move it away: it has an earlier key")
		}
	case to.Command != nil:
		_, err := exec.LookPath(to.Command[0])
		return err
	case to.Terminal && !d.planOnly() && !d.app.msg.Err.Terminal:
		return fmt.Errorf("%w: there is no terminal to show the key on", cli.ErrRefused)
	}
	return nil
}

// carryOut enrols, delivers, and gives the keyslot its label.
func (d *delivery) carryOut(ctx context.Context, out *outcome, op *opened) error {
	d.out = out
	p := out.plan
	p.request.Label = d.item.Label + spec.Undelivered
	p.renames = map[int]string{}
	for _, id := range d.volume.slotsCalled(p.request.Label) { // of earlier runs; they are wiped at the end
		p.renames[id] = p.request.Label
	}
	if err := d.reserve(ctx); err != nil {
		return err
	}
	defer d.discard()
	out.handout = &handout{app: d.app, plan: p, maker: handlerOf[*recovery.Handler](d.item.types), instead: func() error { return d.give(ctx) }}
	if err := d.executor(d.item).carryOut(ctx, out, op); err != nil {
		return err
	}
	return d.adopt(ctx)
}

// reserve makes the file under its other name.
func (d *delivery) reserve(ctx context.Context) (err error) {
	if d.path == "" {
		return nil
	}
	if err := os.Remove(d.part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.item.To.Sheet != "" {
		d.page, err = sheet.Create(ctx, d.part)
		return err
	}
	if d.recipients, err = d.item.recipients(); err != nil {
		return err
	}
	d.envelope, err = escrow.Create(d.part)
	return err
}

// discard removes the file of a key that is not enrolled.
func (d *delivery) discard() {
	if d.path != "" && d.out.enrolled == nil {
		_ = os.Remove(d.part)
	}
}

// give has somebody take the key.
func (d *delivery) give(ctx context.Context) error {
	made, to := d.out.enrolled, d.item.To
	key := made.result.Passphrase
	switch {
	case to.Command != nil:
		return d.run(ctx, key)
	case to.Terminal:
		return d.show(ctx, key)
	case d.page != nil:
		return d.page.Write(ctx, d.out.handout.sheet(key, made.slot, d.item.Label))
	}
	envelope := d.out.plan.envelope(made.slot, d.item.Label)
	if err := envelope.Seal(key, &d.recipients, time.Now()); err != nil {
		return err
	}
	return d.envelope.Write(envelope)
}

// run has a program read the key.
func (d *delivery) run(ctx context.Context, key secret.Secret) error {
	var words []string
	for _, w := range d.item.To.Command {
		words = append(words, d.item.forVolume(w, d.volume))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := program(ctx, words)
	cmd.Stdin = r
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return err
	}
	unread := errors.Join(recovery.Print(w, key), w.Close())
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	if unread != nil {
		return fmt.Errorf("%s did not read the key: %w", words[0], unread)
	}
	return nil
}

// show prints the key for a person, who types part of it back.
func (d *delivery) show(ctx context.Context, key secret.Secret) error {
	w := d.app.msg.Err
	w.Linef("The recovery key %q of %s. Keep it off this machine, on paper or in a safe:", d.item.Label, d.volume.path)
	d.out.handout.showQR(key)
	if err := recovery.Print(w.Raw(), key); err != nil {
		return err
	}
	person := &asking{terminalOnly: true, msg: d.app.msg}
	defer person.close()
	return confirmKey(ctx, d.app.msg, person.asker(), key)
}

// adopt gives the keyslot its label, and the one that had it the label of one that was
// replaced. Then the file gets its name.
func (d *delivery) adopt(ctx context.Context) error {
	err := d.out.plan.device.Update(ctx, func(tx *luks2.Tx) error {
		if old := d.item.slot; old != nil && isThere(&old.Keyslot, tx.Header()) {
			if err := tokens.SetLabel(tx, d.app.enrolling, old.ID, d.item.Label+spec.Replaced); err != nil {
				return err
			}
		}
		return tokens.SetLabel(tx, d.app.enrolling, d.out.enrolled.slot, d.item.Label)
	})
	if err != nil {
		return fmt.Errorf("labelling keyslot %d: %w", d.out.enrolled.slot, err)
	}
	return d.name()
}

// name gives the file its name.
func (d *delivery) name() error {
	if d.path == "" {
		return nil
	}
	if err := os.Rename(d.part, d.path); err != nil {
		return err
	}
	return durable.Names(filepath.Dir(d.path))
}

// complete gives the file its name if an earlier run was ended just before that.
func (e *ensuring) complete(it *item) error {
	if !it.handsOut() || it.action != actionKept || len(e.volume.slotsCalled(it.Label+spec.Undelivered)) > 0 {
		return nil
	}
	d := e.delivery(it)
	_, missing := os.Lstat(d.path)
	part, err := os.Lstat(d.part)
	if d.path == "" || !errors.Is(missing, fs.ErrNotExist) || err != nil || part.Size() == 0 {
		return nil
	}
	it.reason = "its key was put at " + d.path
	e.changed = true
	return d.name()
}
