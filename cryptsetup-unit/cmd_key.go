package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/luks2/secret"
)

// keyName is the name by which key programs call this one: Debian's keyscript=, Alpine's
// cryptkey=EXEC=, which have no place for arguments.
const keyName = "key"

// keyVerb is key [VOLUME [DEVICE [KEY-FILE] [OPTIONS]]].
func keyVerb() ([]flag, func(*app, []string) error) {
	return nil, func(a *app, args []string) error { return a.printKey(args, os.Stdout) }
}

// printKey prints what opens a volume, and asks a person if nothing else does: whoever
// calls a key program may not ask when the key is wrong.
func (a *app) printKey(args []string, out *os.File) error {
	if cli.IsTerminal(int(out.Fd())) {
		return fmt.Errorf("%w: the key would be shown on the terminal; send standard output to the program that takes it", cli.ErrRefused)
	}
	e, err := a.keyEntry(args)
	if err != nil {
		return err
	}
	j, as, err := a.attacherFor(e)
	if err != nil {
		return err
	}
	defer as.close()
	key, err := as.findKey(a.ctx, j)
	if err != nil {
		return fmt.Errorf("key of %s: %w", e.Name, err)
	}
	defer key.Wipe()
	if _, err := out.Write(key.Bytes()); err != nil {
		return fmt.Errorf("printing the key of %s: %w", e.Name, err)
	}
	return nil
}

// keyEntry is the volume that the arguments mean; without any, what Debian's scripts have
// in the environment and Alpine's on the kernel command line.
func (a *app) keyEntry(args []string) (crypttab.Entry, error) {
	if len(args) > 0 {
		return a.entry(args)
	}
	if name, source := os.Getenv("CRYPTTAB_NAME"), os.Getenv("CRYPTTAB_SOURCE"); name != "" && source != "" {
		return crypttab.Entry{Name: name, Source: crypttab.LiteralDeviceRef(source)}, nil
	}
	text, err := a.kernelText()
	if err != nil {
		return crypttab.Entry{}, err
	}
	e := crypttab.Entry{Name: "root"}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "cryptroot":
			e.Source = crypttab.LiteralDeviceRef(value)
		case "cryptdm":
			e.Name = value
		case "cryptheader":
			e.Options = "header=" + value
		}
	}
	if e.Source == (crypttab.DeviceRef{}) {
		return e, &usageError{text: "key: no volume given", hint: "usage: key VOLUME, or cryptroot= on the kernel command line"}
	}
	return e, nil
}

// keeper keeps the passphrase that opened the volume.
type keeper struct {
	mu  sync.Mutex
	key secret.Secret
}

// keep copies a passphrase in place of an earlier one.
func (k *keeper) keep(passphrase secret.Secret) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key.Wipe()
	k.key = secret.Copy(passphrase.Bytes())
}

// findKey has the ways to a key go on until one opens the volume, and returns what did,
// which the caller wipes. Nothing is mapped.
func (as *attacher) findKey(ctx context.Context, j *job) (secret.Secret, error) {
	at := as.newAttempt(j)
	at.keeper = &keeper{}
	defer at.releaseLatch()
	defer at.eraseKeyFile(ctx)
	for {
		err := at.keyRound(ctx)
		if err == nil {
			return at.keeper.key, nil
		}
		at.keeper.key.Wipe()
		if !at.again(ctx, err) {
			return secret.Secret{}, err
		}
	}
}

// keyRound is round up to the volume key.
func (at *attempt) keyRound(ctx context.Context) error {
	defer at.letGo()
	if err := at.find(ctx); err != nil {
		return err
	}
	found, err := at.unlock(ctx)
	if err != nil {
		return err
	}
	defer found.Key.Wipe()
	at.releaseLatch()
	return at.identify(ctx, found)
}
