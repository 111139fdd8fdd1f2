package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// options are those of the root command, except the ones that token types bring.
type options struct {
	header string
	json   cli.JSONMode

	version       bool
	listDevices   bool
	listDevicesOf tokens.DeviceLister // of --tpm2-device=list

	password   bool
	changePIN  bool
	enrollWith tokens.Enroller // chosen by an option of its type
	label      string
	priority   string
	compat     string
	kdf        kdfOptions

	sheet   string // --recovery-sheet=
	confirm bool   // --recovery-confirm

	unlock unlockOptions

	wipe          []string
	unprovenWipe  bool
	backup        string
	dryRun, yes   bool
	pinFile       string
	newPINFile    string
	conflictError error // two enrolments or two ways to unlock in one call
}

// unlockOptions say how to get at the volume key.
type unlockOptions struct {
	keyFile            string
	keyOffset, keySize uint64
	empty, headless    bool
	slot               int // -1: any
	with               tokens.Unlocker
}

// method counts the ways to unlock that were asked for.
func (o *unlockOptions) methods() (names []string) {
	if o.keyFile != "" {
		names = append(names, "--unlock-key-file=")
	}
	if o.empty {
		names = append(names, "--unlock-empty")
	}
	if o.headless {
		names = append(names, "--unlock-headless")
	}
	if o.with != nil {
		names = append(names, "the unlock option of "+o.with.Name())
	}
	return names
}

// enrollsAnything reports whether an enrolment was asked for, and refuses
// combinations that have no meaning.
func (o *options) enrollsAnything() (bool, error) {
	if o.conflictError != nil {
		return false, o.conflictError
	}
	var asked []string
	for _, g := range []given{{"--password", o.password}, {"--tpm2-change-pin", o.changePIN}} {
		if g.set {
			asked = append(asked, g.name)
		}
	}
	if o.enrollWith != nil && !(o.changePIN && o.enrollWith.Name() == "tpm2") { // then --tpm2-device= says which TPM
		asked = append(asked, "the enrolment of "+o.enrollWith.Name())
	}
	if len(asked) > 1 {
		return false, usagef("%s in one call", strings.Join(asked, " and "))
	}
	if names := o.unlock.methods(); len(names) > 1 {
		return false, usagef("%s name several ways to unlock", strings.Join(names, " and "))
	}
	return o.password || o.changePIN || o.enrollWith != nil, nil
}

// section is a group of options in the help text.
type section struct {
	title string
	flags *pflag.FlagSet
}

func newSection(title string) section {
	f := pflag.NewFlagSet(title, pflag.ContinueOnError)
	f.SortFlags = false
	return section{title, f}
}

// rootSections are the options of enrolling, wiping and listing.
func (a *app) rootSections() []section {
	o, known := &a.options, tokenFlags{}
	enroll := newSection("Enrol")
	f := enroll.flags
	f.BoolVar(&o.password, "password", false, "a passphrase that you type")
	a.addTokenFlags(f, known, tokens.Enrolling, "recovery")
	f.StringVar(&o.sheet, "recovery-sheet", "", "write a page with the recovery key to `FILE`.pdf or FILE.png")
	f.BoolVar(&o.confirm, "recovery-confirm", false, "ask to type back two groups of the recovery key")
	a.addTokenFlags(f, known, tokens.Enrolling, "tpm2")
	a.sameTPM(known)
	f.BoolVar(&o.changePIN, "tpm2-change-pin", false, "give the TPM2 token another PIN")
	a.addTokenFlags(f, known, tokens.Enrolling, "fido2", "pkcs11")
	f.StringVar(&o.label, "label", "", "call the new keyslot `NAME`")
	f.StringVar(&o.priority, "priority", "", "try the new keyslot `WHEN`: prefer, normal, ignore")
	f.StringVar(&o.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262")
	f.StringVar(&o.newPINFile, "new-pin-file", "", "read the PIN to be set from `FILE`")
	o.kdf.addFlags(f)

	wipe := newSection("Wipe")
	f = wipe.flags
	f.StringSliceVar(&o.wipe, "wipe-slot", nil, "`SLOTS`: all, empty, password, recovery, pkcs11, fido2, tpm2, other, label:NAME or numbers")

	general := a.commonSection()
	general.flags.BoolVar(&o.listDevices, "list-devices", false, "list the block devices that hold a LUKS2 volume")
	general.flags.BoolVar(&o.version, "version", false, "print the version")
	return []section{enroll, wipe, a.unlockSection(known), a.changeSection(), general}
}

// changeSection are the options of every command that enrols or wipes.
func (a *app) changeSection() section {
	o, s := &a.options, newSection("Any change")
	s.flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be done and change nothing")
	s.flags.StringVar(&o.backup, "backup", "", "first copy the header to `FILE`")
	s.flags.BoolVar(&o.yes, "yes", false, "wipe without asking")
	s.flags.BoolVar(&o.unprovenWipe, "force-unproven-wipe", false, "wipe although nothing proved that another keyslot opens")
	return s
}

// commonSection are the options of every command.
func (a *app) commonSection() section {
	s := newSection("General")
	s.flags.StringVar(&a.options.header, "header", "", "the header is on `DEVICE` or in that file")
	s.flags.Var(&a.options.json, "json", "print JSON in `STYLE`: pretty, short or off")
	s.flags.Bool("no-pager", false, "accepted for compatibility; nothing is paged")
	s.flags.BoolP("help", "h", false, "print this text")
	return s
}

// unlockSection are the options of every command that opens a volume.
func (a *app) unlockSection(known tokenFlags) section {
	s := newSection("Unlock with (default: credentials, the tokens that are there, a question)")
	f, o := s.flags, &a.options.unlock
	f.StringVar(&o.keyFile, "unlock-key-file", "", "the content of `FILE`, - for standard input")
	f.Uint64Var(&o.keyOffset, "unlock-key-file-offset", 0, "skip `BYTES` of the key file")
	f.Uint64Var(&o.keySize, "unlock-key-file-size", 0, "use `BYTES` of the key file, 0 for all")
	a.addTokenFlags(f, known, tokens.Unlocking)
	f.BoolVar(&o.empty, "unlock-empty", false, "the empty passphrase")
	f.BoolVar(&o.headless, "unlock-headless", false, "what asks nobody: credentials, tokens without PIN, the empty passphrase")
	f.IntVar(&o.slot, "unlock-slot", luks2.AnySlot, "keyslot `N` only")
	f.StringVar(&a.options.pinFile, "pin-file", "", "read the PIN of the security device from `FILE`")
	return s
}

// addTokenFlags defines the options of one place that the named token types, or
// all, bring.
func (a *app) addTokenFlags(f *pflag.FlagSet, known tokenFlags, place tokens.Place, names ...string) {
	set := a.enrolling
	if place == tokens.Unlocking {
		set = a.unlocking
	}
	for _, h := range set {
		if len(names) > 0 && !slices.Contains(names, h.Name()) {
			continue
		}
		for _, opt := range h.Options() {
			if opt.Place&place != 0 {
				known.add(f, &tokenFlag{app: a, handler: h, option: opt})
			}
		}
	}
}

// sameTPM makes --tpm2-device= name the TPM to unlock with as well, unless
// --unlock-tpm2-device= names another.
func (a *app) sameTPM(known tokenFlags) {
	h := a.unlocking.ByName("tpm2")
	for _, opt := range h.Options() {
		if opt.Name == "tpm2-device" && opt.Place == tokens.Enrolling {
			opt.Action = tokens.Parameter
			known[opt.Name].also = &tokenFlag{app: a, handler: h, option: opt}
		}
	}
}

// tokenFlags are the options of token types that one command has, by name.
type tokenFlags map[string]*tokenFlag

// add defines an option. One that has a meaning both for enrolling and for
// unlocking, such as --tpm2-signature=, is defined once and told to both handlers.
func (known tokenFlags) add(f *pflag.FlagSet, t *tokenFlag) {
	if first := known[t.option.Name]; first != nil {
		first.also = t
		return
	}
	known[t.option.Name] = t
	flag := f.VarPF(t, t.option.Name, "", t.option.Help)
	if t.option.Arg == "" {
		flag.NoOptDefVal = switchOn
	}
}

// switchOn is what pflag passes for an option without value, as for its own bool
// flags.
const switchOn = "true"

// tokenFlag makes a pflag.Value of a token type's option.
type tokenFlag struct {
	app     *app
	handler tokens.Handler
	option  tokens.Option
	also    *tokenFlag // the same option in another place
	value   string
}

func (t *tokenFlag) String() string { return t.value }

// Type is the placeholder in the help text.
func (t *tokenFlag) Type() string {
	if t.option.Arg == "" {
		return "bool"
	}
	return t.option.Arg
}

func (t *tokenFlag) Set(value string) error {
	o := &t.app.options
	if t.option.Arg == "" && value == switchOn {
		value = ""
	}
	if t.option.List && value == "list" {
		lister, ok := t.handler.(tokens.DeviceLister)
		if !ok {
			return errors.New("nothing to list")
		}
		o.listDevicesOf = lister
		return nil
	}
	if err := t.option.Set(value); err != nil {
		return err
	}
	t.value = value
	if t.also != nil {
		if err := t.also.Set(value); err != nil {
			return err
		}
	}
	switch t.option.Action {
	case tokens.SelectEnroll:
		return t.selectEnroll()
	case tokens.SelectUnlock:
		return t.selectUnlock()
	}
	return nil
}

func (t *tokenFlag) selectEnroll() error {
	o := &t.app.options
	e, ok := t.handler.(tokens.Enroller)
	if !ok {
		return fmt.Errorf("%s tokens cannot be enrolled", t.handler.Name())
	}
	if o.enrollWith != nil && o.enrollWith != e {
		o.conflictError = usagef("an enrolment of %s and one of %s in one call", o.enrollWith.Name(), e.Name())
	}
	o.enrollWith = e
	return nil
}

func (t *tokenFlag) selectUnlock() error {
	o := &t.app.options
	u, ok := t.handler.(tokens.Unlocker)
	if !ok {
		return fmt.Errorf("%s tokens cannot unlock", t.handler.Name())
	}
	if o.unlock.with != nil && o.unlock.with != u {
		o.conflictError = usagef("%s and %s name several ways to unlock", o.unlock.with.Name(), u.Name())
	}
	o.unlock.with = u
	return nil
}

// flagError is the error of an option. Those of token types say themselves what of
// the value is wrong; pflag would print all of it, and there may be a PIN in it.
func flagError(err error) error {
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if _, ok := invalid.GetFlag().Value.(*tokenFlag); ok {
			err = fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
		}
	}
	return fmt.Errorf("%w: %w", tokens.ErrUsage, err)
}

// usagef is an error of the command line.
func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tokens.ErrUsage, fmt.Sprintf(format, args...))
}

// parsePriority reads --priority=; normal without the option.
func parsePriority(value string) (luks2.Priority, error) {
	switch value {
	case "", "normal":
		return luks2.PriorityNormal, nil
	case "prefer":
		return luks2.PriorityPrefer, nil
	case "ignore":
		return luks2.PriorityIgnore, nil
	}
	return 0, usagef("--priority=%s: want prefer, normal or ignore", value)
}

// parseCompat reads --compat=; auto is resolved with the systemd found below root.
func parseCompat(value, root string) (int, error) {
	if value == "auto" {
		return installedSystemd(root), nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < oldestSystemd || n > newestSystemd {
		return 0, usagef("--compat=%s: want auto or a number from %d to %d", value, oldestSystemd, newestSystemd)
	}
	return n, nil
}
