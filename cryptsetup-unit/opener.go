package main

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// opener tries passphrases on the volume of one round. Ways that the contest left
// behind keep the one that they began with.
type opener struct {
	volume *volume
	slots  []int   // that key-slot= allows, nil for all
	keeper *keeper // gets the passphrase that fits; nil where only the volume key counts

	mu     sync.Mutex
	broken error // what went wrong while the volume was read
}

// try computes a volume key, within key-slot=.
func (o *opener) try(ctx context.Context, passphrase secret.Secret, slots []int) (*contest.Found, error) {
	if slots == nil {
		slots = []int{luks2.AnySlot}
	}
	if only := o.slots; only != nil {
		if slots[0] != luks2.AnySlot && !slices.Contains(slots, only[0]) {
			return nil, luks2.ErrNoKey
		}
		slots = only
	}
	var errs []error
	for _, slot := range slots {
		f, err := o.tryOne(ctx, slot, passphrase)
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

func (o *opener) tryOne(ctx context.Context, slot int, passphrase secret.Secret) (*contest.Found, error) {
	vk, err := o.volume.open(ctx, slot, passphrase)
	if err != nil {
		o.note(err)
		return nil, err
	}
	if vk.Digest != o.volume.mapping.Digest {
		vk.Wipe()
		return nil, &luks2.KeyslotError{Slot: vk.Slot, Err: errors.New("its key is not that of the data")}
	}
	o.keeper.keep(passphrase)
	confirm := func(ctx context.Context) error { return o.volume.confirm(ctx, vk) }
	return &contest.Found{Key: vk.Key, Slot: vk.Slot, Token: -1, Confirm: confirm}, nil
}

// note keeps an error that says that the volume could not be read.
func (o *opener) note(err error) {
	if isDeviceError(err) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.broken = err
	}
}

// readError is what went wrong while the volume was read, nil if nothing.
func (o *opener) readError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken
}

// isDeviceError tells what the kernel answers for a device that is no more, or broken,
// from what a header or a key says.
func isDeviceError(err error) bool {
	return slices.ContainsFunc([]error{unix.EIO, unix.ENXIO, unix.ENODEV, unix.ENOMEDIUM, unix.ENOENT, unix.ESTALE, luks2.ErrGone},
		func(e error) bool { return errors.Is(err, e) })
}
