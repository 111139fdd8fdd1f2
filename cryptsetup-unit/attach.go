package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/tokens"
)

// attacher is what all volumes of one run share.
type attacher struct {
	*app
	devices *devices
	mount   mountFunc
	mapper  mapper
	// newHandlers makes the token types anew for each volume.
	newHandlers func() tokens.Set
	measure     measureFunc
	asking      askpass.Options // how to ask; the volume's part is added
	patience    time.Duration   // see contest
	grace       time.Duration   // see attachTogether
	automatic   *automatic      // nil where a person is asked for the passphrase
	pool        *pool
	latch       *latch
	// workspace is the memory for Argon2, so that several volumes do not each need some.
	workspace *luks2.Workspace
}

// mapper makes the kernel's mappings: luks2/dmcrypt, or a fake in tests.
type mapper struct {
	status func(name string) (*dmcrypt.Info, error)
	attach func(context.Context, *dmcrypt.Request) error
	// check reports a kernel that cannot map anything.
	check func() error
}

// attempt is one volume on its way.
type attempt struct {
	as      *attacher
	job     *job
	report  *report
	earlier *report // of the run that made the mapping which is there already
	types   askedTypes
	device  string // node
	// Of this round: the open devices, what they hold, what tries passphrases, and
	// the folder in sysfs of the device with the header's file.
	held     *luks2.Device
	volume   *volume
	opener   *opener
	headerOn string
	lost     lostVolume // by the rounds before
	// releaseLatch says that the volume does not need the PCRs any more. It may be
	// called more than once.
	releaseLatch func()
	// closeHeader gives back what findHeader took.
	closeHeader func()
	askers      []*askpass.Asker // to be closed
	keeper      *keeper          // nil where only the volume key counts
	witness     *witness
}

// newAttempt begins with nothing but the line of crypttab.
func (as *attacher) newAttempt(j *job) *attempt {
	if j.turn == nil {
		newTurns([]*job{j}, as.patience)
	}
	r := newReport(j.entry.Name, j.entry.Source.String())
	handlers := as.newHandlers()
	return &attempt{as: as, job: j, report: r, types: newAskedTypes(handlers, j), releaseLatch: as.latchOf(j), closeHeader: func() {}, witness: newWitness(handlers)}
}

// attach attaches one volume and writes its report.
func (as *attacher) attach(ctx context.Context, j *job) error {
	at := as.newAttempt(j)
	r := at.report
	defer at.releaseLatch()
	defer j.turn.set(away)
	result, err := at.run(ctx)
	if err != nil {
		err = fmt.Errorf("attaching %s: %w", j.entry.Name, withModule(err))
	}
	r.finish(result, err)
	at.recordBoot()
	if err == nil && at.earlier != nil {
		return nil // that report says how the volume was opened; this one could not
	}
	if undo := r.save(as.root); undo != nil {
		as.msg.Warning(undo.Error()) // a read-only /run is no reason to fail
	}
	return err
}

// run attaches the volume, however often its device has to be found again.
func (at *attempt) run(ctx context.Context) (result string, err error) {
	defer at.eraseKeyFile(ctx)
	for {
		result, err := at.round(ctx)
		if !at.again(ctx, err) {
			return result, err
		}
	}
}

// round does the work in its order: what can be refused without a key is refused
// before a key is asked for.
func (at *attempt) round(ctx context.Context) (result string, err error) {
	defer at.letGo()
	if err := at.find(ctx); err != nil {
		return "", err
	}
	if active, err := at.alreadyActive(); active || err != nil {
		return resultActive, err
	}
	if err := at.allowed(); err != nil {
		return "", err
	}
	key, err := at.unlock(ctx)
	if err != nil {
		return "", err
	}
	defer key.Key.Wipe()
	at.releaseLatch()
	if err := at.identify(ctx, key); err != nil {
		return "", err
	}
	return resultAttached, at.activate(ctx, key)
}

// letGo closes what a round had open.
func (at *attempt) letGo() {
	at.closeAskers()
	if at.held != nil {
		_ = at.held.Close()
	}
	at.closeHeader()
}

// find waits for the devices, opens them and reads the header.
func (at *attempt) find(ctx context.Context) error {
	at.device, at.held, at.volume, at.opener, at.headerOn, at.closeHeader = "", nil, nil, nil, "", func() {}
	if err := at.findDevices(ctx); err != nil {
		return err
	}
	defer at.report.stage("header")()
	if err := checkContainer(at.held, at.job.options.ReadOnly, at.held.HeaderPath() == at.device); err != nil {
		return err
	}
	v, err := openVolume(ctx, at.held, at.types.all)
	if errors.Is(err, dmcrypt.ErrUnsupported) {
		return fmt.Errorf("%w; try: %s", err, at.job.openCommand())
	}
	if err != nil {
		return err
	}
	at.volume, at.opener = v, &opener{volume: v, slots: at.job.slots(), keeper: at.keeper}
	at.noteVolume()
	return nil
}

// findDevices waits for the devices and opens them.
func (at *attempt) findDevices(ctx context.Context) (err error) {
	defer at.report.stage("device")()
	defer at.job.turn.whileMissing()()
	at.device, err = at.as.devices.await(ctx, "device", at.deviceWait(), at.sources()...)
	if errors.Is(err, fs.ErrNotExist) { // an image file, which is not waited for
		err = fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	header := ""
	if err == nil {
		at.report.Device = at.device
		header, err = at.findHeader(ctx)
	}
	if err != nil {
		return err
	}
	at.held, err = luks2.Open(at.device, &luks2.OpenOptions{Header: header, ReadOnly: true, Hold: true, Workspace: at.as.workspace})
	if err != nil {
		return fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	return nil
}

// allowed refuses what cannot be honoured, before anybody is asked for a key.
func (at *attempt) allowed() error {
	if err := dmcrypt.CheckUnused(at.device); err != nil {
		return busyOrNot(err)
	}
	if err := at.as.mapper.check(); err != nil {
		return withModule(err)
	}
	h, slot := at.volume.header, at.job.options.KeySlot
	switch {
	case h == nil && at.job.options.TokenOnly:
		return fmt.Errorf("%w: luksmith-token-only: a LUKS1 volume has no tokens", cli.ErrRefused)
	case h == nil || slot == crypttab.AnySlot:
		return nil
	}
	if err := h.KeyslotObstacle(slot); err != nil {
		return fmt.Errorf("key-slot=%d: %w", slot, err)
	}
	return nil
}

// withModule adds what loads a missing module.
func withModule(err error) error {
	if errors.Is(err, dmcrypt.ErrUnsupported) && strings.Contains(err.Error(), "(module ") {
		return tokens.WithHint(err, "load the modules: `modprobe -a dm_mod dm_crypt`; in an initrd they have to be part of the image")
	}
	return err
}

// unlock has the ways look for the volume key.
func (at *attempt) unlock(ctx context.Context) (*contest.Found, error) {
	defer at.report.stage("unlock")()
	ctx, stop := at.whilePresent(ctx)
	defer stop()
	c, err := at.newContest()
	if err != nil {
		return nil, err
	}
	if c.Prompt == nil {
		at.job.turn.set(away)
	}
	told := c.Prompt != nil // the person sees why it takes another way
	if told {
		c.OnFailure = at.tell
	}
	f, failures, err := c.Run(ctx)
	at.report.addFailures(failures)
	at.witness.decided(f, failures)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, fmt.Errorf("%w: there is no key file, no token that could be tried, and nobody may be asked", tokens.ErrNoPrompt)
	}
	at.report.openedBy(f, at.keyslot(f.Slot))
	for _, failed := range failures {
		if !told {
			at.tell(failed)
		}
	}
	return f, nil
}

// keyslot is what people know a keyslot by; nil for none, and for LUKS1.
func (at *attempt) keyslot(id int) *tokens.Slot {
	if at.volume.header == nil {
		return nil
	}
	for _, s := range tokens.Slots(at.types.all, at.volume.header) {
		if s.ID == id {
			return &s
		}
	}
	return nil
}

// tell prints a failure after which something else is tried.
func (at *attempt) tell(f *contest.Failure) {
	if at.worthSaying(f) {
		at.as.msg.WarnError(fmt.Errorf("%s: %w", at.job.entry.Name, f))
	}
}

// worthSaying is false for security devices that nobody asked for and that are just
// not there, and for passphrases that nobody stored.
func (at *attempt) worthSaying(f *contest.Failure) bool {
	if f.Way == storedPassphrase && errors.Is(f, tokens.ErrNoPrompt) {
		return false
	}
	return at.types.areNamed() || !errors.Is(f, tokens.ErrNoDevice)
}

// latchOf returns the function that releases the latch for a volume.
func (as *attacher) latchOf(j *job) func() {
	if !j.options.Latch {
		return func() {}
	}
	return sync.OnceFunc(as.latch.release)
}

// eraseKeyFile implements keyfile-erase: also when the volume was not opened, but not
// when somebody interrupted that.
func (at *attempt) eraseKeyFile(ctx context.Context) {
	switch {
	case ctx.Err() != nil:
		return
	case !at.job.options.KeyFileErase || at.job.entry.Key.Path == "":
		return
	case at.job.entry.Key.Device != nil:
		at.warn(fmt.Sprintf("keyfile-erase: %s stays, because its device is mounted read-only", at.job.entry.Key))
		return
	}
	if err := eraseKeyFile(at.job.entry.Key.Path); err != nil {
		at.warn(err.Error())
	}
}

// warn prints a warning about the volume and notes it in the report.
func (at *attempt) warn(text string) {
	at.as.msg.Warning(at.job.entry.Name + ": " + text)
	at.report.warn(text)
}
