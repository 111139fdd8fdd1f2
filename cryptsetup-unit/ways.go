package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// newContest puts the ways to open this volume in their order:
//
//	token option:  that type, waited for; key file; keys.d; …
//	key file:      key file; keys.d; …
//	neither:       tokens that are present now; keys.d; …
//	… is:          the empty passphrase; stored passphrases; a person
//
// With luksmith-token-only there are only tokens.
func (at *attempt) newContest() (*contest.Contest, error) {
	c, err := at.contestOfWays()
	if err == nil && at.as.automatic != nil {
		at.as.automatic.arrange(at, c)
	}
	return c, err
}

func (at *attempt) contestOfWays() (*contest.Contest, error) {
	tokenWays := at.tokenWays()
	c := &contest.Contest{Ways: tokenWays, Patience: at.as.patience, Settle: contest.SettleTime}
	if at.job.options.TokenOnly {
		if len(tokenWays) == 0 {
			return nil, fmt.Errorf("%w: luksmith-token-only: the header has no token that could open the volume", cli.ErrRefused)
		}
		return c, nil
	}
	c.Ways = append(c.Ways, at.keyFileWays()...)
	if at.job.options.TryEmptyPassword {
		c.Ways = append(c.Ways, emptyWay{at.opener.try})
	}
	if at.volume.noun == nounNone {
		return c, nil
	}
	c.Background = []contest.Way{poolWay{at.as.pool, at.job.entry.Name, at.opener.try}}
	c.Ways = append(c.Ways, &automaticWay{answers: at.answers(at.asker(true)), required: at.job.options.Headless})
	tries, ask := at.tries()
	if at.asks() && ask {
		c.Prompt = at.prompt(tries)
	}
	return c, nil
}

// tries is how many answers a person has.
func (at *attempt) tries() (n uint32, ask bool) {
	if at.job.entry.Key.Path == "" {
		return at.job.options.Tries, true
	}
	return at.as.manner.triesLeft(at.job.options.Tries)
}

// asks reports whether a person may be asked for this volume.
func (at *attempt) asks() bool {
	return !at.job.options.Headless && !at.job.options.TokenOnly && at.volume.noun != nounNone
}

// asker asks about this volume; a quiet one only uses what needs nobody.
func (at *attempt) asker(quiet bool) *askpass.Asker { return at.newAsker(quiet, nil) }

// askerWith asks for PINs; a passphrase that is typed for one goes to h.
func (at *attempt) askerWith(h *handed) *askpass.Asker { return at.newAsker(false, h) }

// newHanded is nil where no keyslot is for people.
func (at *attempt) newHanded() *handed {
	if !at.asks() {
		return nil
	}
	return &handed{try: at.opener.try, noun: at.volume.noun, share: func(passphrase secret.Secret) { at.as.pool.add(at.job.entry.Name, passphrase) }}
}

func (at *attempt) newAsker(quiet bool, given *handed) *askpass.Asker {
	o := at.as.asking
	o.Headless = quiet || at.job.options.Headless
	o.ID, o.Icon = askpass.AgentID(at.source()), "drive-harddisk"
	o.Echo = map[crypttab.Echo]askpass.Echo{crypttab.EchoYes: askpass.EchoText, crypttab.EchoNo: askpass.EchoSilent}[at.job.options.Echo]
	o.Cache = map[crypttab.Cache]askpass.CacheMode{crypttab.CacheYes: askpass.CacheYes, crypttab.CacheReadOnly: askpass.CacheReadOnly}[at.job.options.PasswordCache]
	if at.job.options.Value("timeout") != "" {
		o.AgentPatience = 0 // it says how long a question stays
	}
	if !quiet && at.asks() {
		o.Instead = func() string { return string(at.volume.noun) }
		o.OnKey = bothOf(o.OnKey, at.job.turn.key)
	}
	if given != nil {
		o.IsPassphrase = given.isPassphrase
	}
	asker := askpass.New(o)
	at.askers = append(at.askers, asker)
	return asker
}

// bothOf calls two functions, of which the first may be nil.
func bothOf(first, second func()) func() {
	if first == nil {
		return second
	}
	return func() { first(); second() }
}

// closeAskers wipes what the volume's askers saw in the kernel keyring.
func (at *attempt) closeAskers() {
	for _, asker := range at.askers {
		asker.Close()
	}
}

// source is the volume's device by the name that agents such as clevis open: the
// path that was given, or the link that udev has for the tag.
func (at *attempt) source() string {
	if at.job.entry.Source.Tag == crypttab.TagPath {
		return at.job.entry.Source.Value
	}
	for _, link := range at.job.entry.Source.UdevLinks() {
		if _, err := os.Stat(link); err == nil {
			return link
		}
	}
	return at.device
}

func (at *attempt) answers(asker *askpass.Asker) answers {
	return answers{asker: asker, noun: at.volume.noun, disk: diskName(at.as.root, at.device, at.job.entry.Name), try: at.opener.try,
		accept: func(passphrase secret.Secret, from askpass.Source) {
			at.as.pool.add(at.job.entry.Name, passphrase)
			if typed(from) {
				if err := asker.Remember(passphraseKeyring, passphrase); err != nil {
					at.warn(err.Error())
				}
			}
		}}
}

func (at *attempt) prompt(tries uint32) func(<-chan struct{}) contest.Way {
	asker, name := at.asker(false), at.job.entry.Name
	return func(appear <-chan struct{}) contest.Way {
		return &promptWay{answers: at.answers(asker), appear: appear, tries: tries, verify: at.job.options.Verify, timeout: at.job.options.Timeout,
			turn: at.job.turn, reserve: at.volume.reserve, settled: func(ctx context.Context) error { return at.as.pool.settled(ctx, name) }, again: at.as.attachCommand(at.job)}
	}
}

// keyFile describes a key file for this volume; peer is what a server is told.
func (at *attempt) keyFile(path, peer string) keyFile {
	return keyFile{path: path, peer: peer + at.job.entry.Name, timeout: answerPeriod, warn: at.warn}
}

// keyFileWays are the configured key file and the first one of keys.d.
func (at *attempt) keyFileWays() (ways []contest.Way) {
	if at.job.entry.Key.Path != "" && !at.types.takeKeyFile() {
		ways = append(ways, at.configuredKeyFile(peerKey))
	}
	for _, path := range at.job.discovered(at.as.root) {
		if _, err := os.Lstat(path); err == nil {
			return append(ways, &keyFileWay{file: at.keyFile(path, peerKey), try: at.opener.try})
		}
	}
	return ways
}

// configuredKeyFile is the third field of crypttab.
func (at *attempt) configuredKeyFile(peer string) *keyFileWay {
	file := at.keyFile(at.job.entry.Key.Path, peer)
	file.offset, file.size = at.job.options.KeyFileOffset, at.job.options.KeyFileSize
	if at.job.entry.Key.Device == nil && at.job.options.KeyFileTimeout != nil && *at.job.options.KeyFileTimeout != crypttab.Forever {
		file.timeout = *at.job.options.KeyFileTimeout
	}
	return &keyFileWay{file: file, device: at.job.entry.Key.Device, devices: at.as.devices, mount: at.as.mount, wait: at.job.keyDeviceWait(at.asks()), try: at.opener.try}
}

// failedWay is one that is known to fail before it begins.
type failedWay struct {
	what string
	err  error
}

func (w failedWay) Name() string { return w.what }
func (w failedWay) Open(context.Context, func(bool)) (*contest.Found, error) {
	return nil, w.err
}

// releasingWay calls release when the way has ended.
type releasingWay struct {
	contest.Way
	release func()
}

func (w releasingWay) Open(ctx context.Context, busy func(bool)) (*contest.Found, error) {
	defer func() {
		if !errors.Is(context.Cause(ctx), luks2.ErrGone) { // else the volume is tried again
			w.release()
		}
	}()
	return w.Way.Open(ctx, busy)
}
