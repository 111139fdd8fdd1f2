package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/luks2/secret"
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
	pool        *pool
	latch       *latch
	// kdf lets one volume at a time compute Argon2, so that several do not need
	// the memory of all of them at once.
	kdf chan struct{}
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
	*attacher
	*job
	report   *report
	earlier  *report    // of the run that made the mapping which is there already
	handlers tokens.Set // with the options of crypttab
	device   string     // node
	volume   *volume
	// settleLatch says that the volume does not need the PCRs any more. It may be
	// called more than once.
	settleLatch func()
	// closeHeader gives back what findHeader took.
	closeHeader func()
	askers      []*askpass.Asker // to be closed
}

// attach attaches one volume and writes its report.
func (a *attacher) attach(ctx context.Context, j *job) error {
	r := newReport(j.entry.Name, j.entry.Source.String())
	at := &attempt{attacher: a, job: j, report: r, handlers: a.newHandlers(), settleLatch: a.latchOf(j), closeHeader: func() {}}
	defer at.settleLatch()
	result, err := at.run(ctx)
	if err != nil {
		err = fmt.Errorf("attaching %s: %w", j.entry.Name, err)
	}
	r.finish(result, err)
	if err == nil && at.earlier != nil {
		return nil // that report says how the volume was opened; this one could not
	}
	if undo := r.save(a.root); undo != nil {
		a.msg.Warning(undo.Error()) // a read-only /run is no reason to fail
	}
	return err
}

// run does the work in its order: what can be refused without a key is refused
// before a key is asked for.
func (a *attempt) run(ctx context.Context) (result string, err error) {
	defer func() { a.closeHeader() }()
	defer a.closeAskers()
	if err := a.find(ctx); err != nil {
		return "", err
	}
	if active, err := a.alreadyActive(); active || err != nil {
		return resultActive, err
	}
	if err := a.allowed(); err != nil {
		return "", err
	}
	key, err := a.unlock(ctx)
	if err != nil {
		return "", err
	}
	defer key.key.Wipe()
	a.settleLatch()
	if err := a.identify(ctx, key); err != nil {
		return "", err
	}
	return resultAttached, a.activate(ctx, key)
}

// find waits for the devices and reads the header.
func (a *attempt) find(ctx context.Context) (err error) {
	end := a.report.stage("device")
	a.device, err = a.devices.await(ctx, "device", a.entry.Source, a.deviceWait())
	if errors.Is(err, fs.ErrNotExist) { // an image file, which is not waited for
		err = fmt.Errorf("%w: %w", cli.ErrWrongDevice, err)
	}
	header := ""
	if err == nil {
		header, err = a.findHeader(ctx)
	}
	end()
	if err != nil {
		return err
	}
	defer a.report.stage("header")()
	a.report.Device = a.device
	if err := checkContainer(a.device, a.options.ReadOnly, header == ""); err != nil {
		return err
	}
	a.volume, err = openVolume(ctx, a.device, header)
	if errors.Is(err, dmcrypt.ErrUnsupported) {
		return fmt.Errorf("%w; try: %s", err, a.openCommand())
	}
	if err == nil {
		a.report.UUID = a.volume.uuid
	}
	return err
}

// allowed refuses what cannot be honoured, before anybody is asked for a key.
func (a *attempt) allowed() error {
	if err := dmcrypt.CheckUnused(a.device); err != nil {
		return busyOrNot(err)
	}
	if err := a.mapper.check(); err != nil {
		return err
	}
	h, slot := a.volume.header, a.options.KeySlot
	switch {
	case h == nil && a.options.TokenOnly:
		return fmt.Errorf("%w: luksmith-token-only: a LUKS1 volume has no tokens", cli.ErrRefused)
	case h == nil || slot == crypttab.AnySlot:
		return nil
	}
	if err := h.KeyslotObstacle(slot); err != nil {
		return fmt.Errorf("key-slot=%d: %w", slot, err)
	}
	return nil
}

// unlock has the ways look for the volume key.
func (a *attempt) unlock(ctx context.Context) (*found, error) {
	defer a.report.stage("unlock")()
	c, err := a.contest()
	if err != nil {
		return nil, err
	}
	defer a.eraseKeyFile()
	told := c.prompt != nil // the person sees why it takes another way
	if told {
		c.onFailure = a.tell
	}
	f, failures, err := c.run(ctx)
	a.report.addFailures(failures)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, fmt.Errorf("%w: there is no key file, no token that could be tried, and nobody may be asked", tokens.ErrNoPrompt)
	}
	a.report.openedBy(f)
	for _, failed := range failures {
		if !told {
			a.tell(failed)
		}
	}
	return f, nil
}

// tell prints a failure after which something else is tried.
func (a *attempt) tell(f *failure) {
	if a.worthSaying(f) {
		a.msg.WarnError(fmt.Errorf("%s: %w", a.entry.Name, f))
	}
}

// worthSaying is false for security devices that nobody asked for and that are just
// not there, and for passphrases that nobody stored.
func (a *attempt) worthSaying(f *failure) bool {
	if f.way == storedPassphrase && errors.Is(f, tokens.ErrNoPrompt) {
		return false
	}
	asked := a.options.TPM2 || a.options.FIDO2 || a.options.PKCS11
	return asked || !errors.Is(f, tokens.ErrNoDevice)
}

// latchOf returns the function that settles the latch for a volume.
func (a *attacher) latchOf(j *job) func() {
	if !j.options.Latch {
		return func() {}
	}
	return sync.OnceFunc(a.latch.settled)
}

// eraseKeyFile implements keyfile-erase: also when the volume was not opened.
func (a *attempt) eraseKeyFile() {
	switch {
	case !a.options.KeyFileErase || a.entry.Key.Path == "":
		return
	case a.entry.Key.Device != nil:
		a.warn(fmt.Sprintf("keyfile-erase: %s stays, because its device is mounted read-only", a.entry.Key))
		return
	}
	if err := eraseKeyFile(a.entry.Key.Path); err != nil {
		a.warn(err.Error())
	}
}

// warn prints a warning about the volume and notes it in the report.
func (a *attempt) warn(text string) {
	a.msg.Warning(a.entry.Name + ": " + text)
	a.report.warn(text)
}

// try computes a volume key, within key-slot= and one Argon2 at a time.
func (a *attempt) try(ctx context.Context, passphrase secret.Secret, slots []int) (*found, error) {
	if slots == nil {
		slots = []int{luks2.AnySlot}
	}
	if only := a.slots(); only != nil {
		if slots[0] != luks2.AnySlot && !slices.Contains(slots, only[0]) {
			return nil, luks2.ErrNoKey
		}
		slots = only
	}
	var errs []error
	for _, slot := range slots {
		f, err := a.tryOne(ctx, slot, passphrase)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

func (a *attempt) tryOne(ctx context.Context, slot int, passphrase secret.Secret) (*found, error) {
	if a.volume.hungry(slot) {
		select {
		case a.kdf <- struct{}{}:
			defer func() { <-a.kdf }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	vk, err := a.volume.open(ctx, slot, passphrase)
	if err != nil {
		return nil, err
	}
	if vk.Digest != a.volume.mapping.Digest {
		vk.Wipe()
		return nil, &luks2.KeyslotError{Slot: vk.Slot, Err: errors.New("its key is not that of the data")}
	}
	return &found{key: vk.Key, slot: vk.Slot, token: -1}, nil
}
