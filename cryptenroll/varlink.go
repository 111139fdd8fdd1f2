package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/varlinkapi"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// varlinkBackend carries out the calls of varlinkapi: each is a run of the command that
// asks nobody.
type varlinkBackend struct{ types func() tokens.Set }

var _ varlinkapi.Backend = (*varlinkBackend)(nil)

// serveVarlink serves the caller who started the command as a Varlink service, without
// any words.
func serveVarlink(types func() tokens.Set, args []string) (served bool, err error) {
	if len(args) > 1 {
		return false, nil
	}
	socket := varlinkapi.Invoked()
	if socket == nil {
		return false, nil
	}
	err = interruptibly(context.Background(), func(ctx context.Context) error {
		return varlinkapi.Serve(ctx, socket, &varlinkBackend{types})
	})
	return true, err
}

// varlinkRun is one call.
type varlinkRun struct {
	*app
	root   *cobra.Command
	output bytes.Buffer // what it prints; secrets do not pass through it
}

// start makes a command for a call. Nobody can be asked, and what is printed goes into
// the answer.
func (b *varlinkBackend) start(r *varlinkapi.Request, words []string) *varlinkRun {
	name := "cryptenroll"
	if r.AsSystemd {
		name = "systemd-cryptenroll"
	}
	v := &varlinkRun{app: newApp(name, b.types)}
	v.out = cli.StreamTo(&v.output)
	secrets := &r.Secrets
	v.environment = askpass.GivenEnvironment(map[string]secret.Secret{
		"NEWPASSWORD": secrets.NewPassphrase, "PIN": secrets.PIN, "NEWPIN": secrets.NewPIN})
	v.person = &asking{headless: true, environment: v.environment, msg: v.msg, shown: r.Touch}
	v.options.unlock.given = r.UnlockByPassphrase
	v.options.unlock.passphrase = secrets.Passphrase
	v.root = v.rootCommand(words)
	return v
}

// Slots lists the keyslots by the types that io.systemd.CryptEnroll has.
func (b *varlinkBackend) Slots(ctx context.Context, node string) ([]varlinkapi.Slot, error) {
	a := b.start(&varlinkapi.Request{AsSystemd: true}, nil)
	v, err := a.openVolume(ctx, node, false)
	if err != nil {
		return nil, err
	}
	if err := v.refuseHomed(); err != nil {
		return nil, err
	}
	var list []varlinkapi.Slot
	for _, s := range v.slots {
		slot := varlinkapi.Slot{Number: s.ID, Type: s.Kind}
		if !slices.Contains([]string{tokens.KindPassword, "recovery", "pkcs11", "fido2", "tpm2"}, s.Kind) {
			slot.Type = ""
		}
		list = append(list, slot)
	}
	return list, nil
}

// Enroll plans and executes an enrolment.
func (b *varlinkBackend) Enroll(ctx context.Context, r *varlinkapi.Request) (*varlinkapi.Enrolled, error) {
	v := b.start(r, r.Words)
	p, err := v.planFor(ctx, r)
	if err != nil {
		return nil, err
	}
	out := &outcome{plan: p, opened: -1}
	defer out.wipe()
	if out.handout, err = v.prepareHandout(ctx, p); err != nil {
		return nil, err
	}
	defer out.handout.discard()
	out.handout.instead = r.Alive
	if err := v.executor().execute(ctx, out); err != nil {
		return nil, out.ended(ctx, err)
	}
	reporter := v.reporter()
	unwritten := reporter.writeCrypttab(out)
	done := &varlinkapi.Enrolled{Slot: out.enrolled.slot, Result: reporter.view(out)}
	for _, s := range out.wiped {
		done.Wiped = append(done.Wiped, s.ID)
	}
	if out.handout.prints() {
		done.Key = out.enrolled.result.Passphrase.Clone()
	}
	return done, unwritten
}

// planFor reads the options of a call.
func (v *varlinkRun) planFor(ctx context.Context, r *varlinkapi.Request) (*plan, error) {
	if err := v.root.ParseFlags(r.Words); err != nil {
		return nil, flagError(v.root, err)
	}
	o := &v.options
	o.choose()
	switch enrolls, err := o.enrollsAnything(); {
	case err != nil:
		return nil, err
	case !enrolls || len(v.root.Flags().Args()) > 0 || o.listDevicesOf != nil:
		return nil, usagef("the options enrol nothing")
	case o.confirm:
		return nil, usagef("--recovery-confirm: nobody is asked")
	}
	if err := o.refuseIdle(v.root.Flags()); err != nil {
		return nil, err
	}
	p, err := v.makePlan(ctx, r.Node)
	if err != nil {
		return nil, err
	}
	return p, v.reporter().refuseCrypttab(p)
}

// Run runs a command and returns the document that it prints.
func (b *varlinkBackend) Run(ctx context.Context, verb string, r *varlinkapi.Request) (json.RawMessage, error) {
	words := slices.Concat([]string{verb, "--json=short"}, r.Words, []string{"--", r.Node})
	v := b.start(r, words)
	v.root.SetArgs(words)
	err := v.root.ExecuteContext(ctx)
	found := errors.Is(err, errDoctorWarns) || errors.Is(err, errDoctorFails)
	if err != nil && !found {
		return nil, err
	}
	return bytes.TrimSpace(v.output.Bytes()), nil
}

// homed is the type of the token of systemd-homed: systemd 262 src/home/homework-luks.c.
const homed = "systemd-homed"

// refuseHomed refuses a volume whose keyslots have to match the record of a user.
func (v *volume) refuseHomed() error {
	if !slices.ContainsFunc(v.header.Heeded(), func(t luks2.Token) bool { return t.Type == homed }) {
		return nil
	}
	return tokens.WithHint(fmt.Errorf("%w: %s is %w, whose record of the user has to match the keyslots", cli.ErrRefused, v.path, varlinkapi.ErrForeign),
		"homectl(1) enrols and removes what unlocks a home")
}
