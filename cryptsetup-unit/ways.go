package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// contest puts the ways to open this volume in their order:
//
//	token option:  that type, waited for; key file; keys.d; …
//	key file:      key file; keys.d; …
//	neither:       tokens that are present now; keys.d; …
//	… is:          the empty passphrase; stored passphrases; a person
//
// With luksmith-token-only there are only tokens.
func (a *attempt) contest() (*contest, error) {
	tokenWays, err := a.tokenWays()
	if err != nil {
		return nil, err
	}
	c := &contest{ways: tokenWays, patience: a.patience, settle: settleTime}
	if a.options.TokenOnly {
		if len(tokenWays) == 0 {
			return nil, fmt.Errorf("%w: luksmith-token-only: the header has no token that could open the volume", cli.ErrRefused)
		}
		return c, nil
	}
	c.ways = append(c.ways, a.keyFileWays()...)
	if a.options.TryEmptyPassword {
		c.ways = append(c.ways, emptyWay{a.try})
	}
	if a.volume.noun == nounNone {
		return c, nil
	}
	c.background = []way{poolWay{a.pool, a.entry.Name, a.try}}
	c.ways = append(c.ways, &automaticWay{answers: a.answers(a.asker(true)), required: a.options.Headless})
	if a.asks() {
		c.prompt = a.prompt()
	}
	return c, nil
}

// asks reports whether a person may be asked for this volume.
func (a *attempt) asks() bool {
	return !a.options.Headless && !a.options.TokenOnly && a.volume.noun != nounNone
}

// asker asks about this volume; a quiet one only uses what needs nobody.
func (a *attempt) asker(quiet bool) *askpass.Asker {
	o := a.asking
	o.Headless = quiet || a.options.Headless
	o.ID, o.Icon = askpass.AgentID(a.source()), "drive-harddisk"
	o.Echo = map[crypttab.Echo]askpass.Echo{crypttab.EchoYes: askpass.EchoText, crypttab.EchoNo: askpass.EchoSilent}[a.options.Echo]
	o.Cache = map[crypttab.Cache]askpass.CacheMode{crypttab.CacheYes: askpass.CacheYes, crypttab.CacheReadOnly: askpass.CacheReadOnly}[a.options.PasswordCache]
	asker := askpass.New(o)
	a.askers = append(a.askers, asker)
	return asker
}

// closeAskers wipes what the volume's askers saw in the kernel keyring.
func (a *attempt) closeAskers() {
	for _, asker := range a.askers {
		asker.Close()
	}
}

// source is the volume's device by the name that agents such as clevis open: the
// path that was given, or the link that udev has for the tag.
func (a *attempt) source() string {
	if a.entry.Source.Tag == crypttab.TagPath {
		return a.entry.Source.Value
	}
	for _, link := range a.entry.Source.UdevLinks() {
		if _, err := os.Stat(link); err == nil {
			return link
		}
	}
	return a.device
}

func (a *attempt) answers(asker *askpass.Asker) answers {
	return answers{asker: asker, noun: a.volume.noun, disk: diskName(a.root, a.device, a.entry.Name), try: a.try,
		accept: func(passphrase secret.Secret, from askpass.Source) {
			a.pool.add(a.entry.Name, passphrase)
			if typed(from) {
				if err := asker.Remember(passphraseKeyring, passphrase); err != nil {
					a.warn(err.Error())
				}
			}
		}}
}

func (a *attempt) prompt() func(<-chan struct{}) way {
	asker := a.asker(false)
	return func(appear <-chan struct{}) way {
		return &promptWay{answers: a.answers(asker), appear: appear, tries: a.options.Tries, verify: a.options.Verify, timeout: a.options.Timeout}
	}
}

// keyFile describes a key file for this volume; peer is what a server is told.
func (a *attempt) keyFile(path, peer string) keyFile {
	return keyFile{path: path, peer: peer + a.entry.Name, timeout: answerPeriod, warn: a.warn}
}

// keyFileWays are the configured key file and the first one of keys.d.
func (a *attempt) keyFileWays() (ways []way) {
	if a.entry.Key.Path != "" {
		ways = append(ways, a.configuredKeyFile(peerKey))
	}
	for _, path := range a.discovered(a.root) {
		if _, err := os.Lstat(path); err == nil {
			return append(ways, &keyFileWay{file: a.keyFile(path, peerKey), try: a.try})
		}
	}
	return ways
}

// configuredKeyFile is the third field of crypttab.
func (a *attempt) configuredKeyFile(peer string) *keyFileWay {
	file := a.keyFile(a.entry.Key.Path, peer)
	file.offset, file.size = a.options.KeyFileOffset, a.options.KeyFileSize
	if a.entry.Key.Device == nil && a.options.KeyFileTimeout != nil && *a.options.KeyFileTimeout != crypttab.Forever {
		file.timeout = *a.options.KeyFileTimeout
	}
	return &keyFileWay{file: file, device: a.entry.Key.Device, devices: a.devices, mount: a.mount, wait: a.keyDeviceWait(a.asks()), try: a.try}
}

// tokenWays returns the one way with all token types that may be used, if any.
func (a *attempt) tokenWays() ([]way, error) {
	w := &tokenWay{ui: a.asker(false), try: a.try, watch: a.devices.watch,
		volume: tokens.Volume{UUID: a.volume.uuid, Device: a.device, Label: a.volume.label, Name: a.entry.Name, Tokens: a.volume.tokens}}
	var missing []way
	configured, err := a.configure()
	if err != nil {
		return nil, err
	}
	for _, h := range a.handlers {
		unlocker, ok := h.(tokens.Unlocker)
		asked := slices.Contains(configured, h.Name())
		if !ok || len(configured) > 0 && !asked || len(configured) == 0 && a.entry.Key.Path != "" {
			continue
		}
		t := &tokenType{handler: unlocker, tokens: a.candidates(h.Type())}
		if asked {
			t.keyData = a.keyData(h.Name())
		}
		switch {
		case len(t.tokens) > 0 || t.keyData != nil:
			w.types = append(w.types, t)
		case asked:
			missing = append(missing, failedWay{h.Name() + " token", fmt.Errorf("the header has no %s token", h.Type())})
		}
	}
	if len(configured) > 0 {
		w.wait = a.options.TokenTimeout
	}
	if len(w.types) == 0 {
		a.settleLatch()
		return missing, nil
	}
	return append(missing, settlingWay{w, a.settleLatch}), nil
}

// candidates are the tokens of a type, within key-slot=.
func (a *attempt) candidates(tokenType string) (list []luks2.Token) {
	only := a.slots()
	for _, t := range a.volume.tokens {
		if t.Type == tokenType && (only == nil || slices.Contains(t.Keyslots, only[0])) {
			list = append(list, t)
		}
	}
	return list
}

// configure hands the options of the token types to their handlers and returns the
// names of the types that crypttab asks for.
func (a *attempt) configure() (asked []string, err error) {
	for name, given := range map[string]bool{"tpm2": a.options.TPM2, "fido2": a.options.FIDO2, "pkcs11": a.options.PKCS11} {
		if given {
			asked = append(asked, name)
		}
	}
	for _, h := range a.handlers {
		if err := a.setOptions(h); err != nil {
			return nil, err
		}
	}
	return asked, nil
}

// setOptions gives a handler what crypttab says about its type.
func (a *attempt) setOptions(h tokens.Handler) error {
	for _, o := range h.Options() {
		if o.Place&tokens.Crypttab == 0 {
			continue
		}
		if err := a.setOption(&o); err != nil {
			return err
		}
	}
	return nil
}

// setOption gives a handler's option the values that crypttab has for it. A value
// that the table of crypttab takes and the handler does not is an error where
// systemd makes it one, else a warning.
func (a *attempt) setOption(o *tokens.Option) error {
	for _, w := range a.options.Words {
		if w.Name != o.Name {
			continue
		}
		err := o.Set(w.Value)
		if err == nil {
			continue
		}
		if crypttab.IsFatal(w.Name) {
			return a.entry.Errorf("options: "+w.String(), "%w", err)
		}
		a.warn(a.entry.Errorf("options: "+w.String(), "ignored: %w", err).Error())
	}
	return nil
}

// keyData returns how to read what stands in the key file instead of the header,
// nil where systemd looks into the header: a FIDO2 credential named by fido2-cid=, a
// PKCS#11 object named by its URI, a TPM2 object whenever there is a key file.
func (a *attempt) keyData(handler string) func(context.Context) (secret.Secret, error) {
	if a.entry.Key.Path == "" {
		return nil
	}
	var w *keyFileWay
	switch handler {
	case "tpm2":
		w = a.configuredKeyFile(peerTPM2)
	case "fido2":
		if cid := a.options.Value("fido2-cid"); cid == "" || cid == "auto" {
			return nil
		}
		w = a.configuredKeyFile(peerFIDO2)
		w.file.size = 0 // systemd 257 ignores keyfile-size= for the salt
	case "pkcs11":
		if !strings.HasPrefix(a.options.Value("pkcs11-uri"), "pkcs11:") {
			return nil
		}
		w = a.configuredKeyFile(peerPKCS11)
	default:
		return nil
	}
	return func(ctx context.Context) (secret.Secret, error) {
		s, err := w.read(ctx, func(bool) {})
		if err != nil {
			return s, fmt.Errorf("%s: %w", w.name(), err)
		}
		return s, nil
	}
}

// failedWay is one that is known to fail before it begins.
type failedWay struct {
	what string
	err  error
}

func (w failedWay) name() string { return w.what }
func (w failedWay) open(context.Context, func(bool)) (*found, error) {
	return nil, w.err
}

// settlingWay calls settled when the way has ended.
type settlingWay struct {
	way
	settled func()
}

func (w settlingWay) open(ctx context.Context, busy func(bool)) (*found, error) {
	defer w.settled()
	return w.way.open(ctx, busy)
}
