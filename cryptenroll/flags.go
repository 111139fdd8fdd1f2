package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/escrow"
	"luksmith/tokens/tpm2"
)

// options are those of the root command, except the ones that token types bring.
type options struct {
	header string
	image  imageOptions
	json   cli.JSONMode

	version       bool
	listDevices   bool
	listDevicesOf tokens.DeviceLister // of --tpm2-device=list

	password   bool
	changePIN  bool
	enrollers  []tokens.Enroller // chosen by options of their types
	enrollWith tokens.Enroller   // the one of them that makes the key
	label      string
	priority   string
	compat     string
	kdf        kdfOptions

	crypttab string // --write-crypttab=, a file

	sheet      string            // --recovery-sheet=
	confirm    bool              // --recovery-confirm
	escrow     escrow.Recipients // --recovery-escrow=
	escrowFile string            // --recovery-escrow-file=

	unlock    unlockOptions
	unlockers []tokens.Unlocker // chosen by options of their types

	wipe          []string
	unprovenWipe  bool
	backup        string
	dryRun, yes   bool
	pinFile       string
	newPINFile    string
	meant         []meant // options, in sections
	conflictError error   // two enrolments or two ways to unlock in one call
}

// unlockOptions say how to get at the volume key.
type unlockOptions struct {
	keyFile            string
	keyOffset, keySize uint64
	empty, headless    bool
	slotName           // --unlock-slot=
	with               tokens.Unlocker

	given      bool          // the passphrase came with the call
	passphrase secret.Secret // borrowed
}

// method counts the ways to unlock that were asked for.
func (o *unlockOptions) methods() (names []string) {
	if o.keyFile != "" {
		names = append(names, "--unlock-key-file=")
	}
	if o.given {
		names = append(names, "unlockPassword")
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
	e := o.enrollWith
	var asked []string
	for _, g := range []given{{"--password", o.password}, {"--tpm2-change-pin", o.changePIN}} {
		if g.set {
			asked = append(asked, g.name)
		}
	}
	if e != nil && !o.changesPINOn(e) {
		asked = append(asked, selector(e))
	}
	if len(asked) > 1 {
		return false, usagef("one call enrols one thing: choose %s", strings.Join(asked, " or "))
	}
	if names := o.unlock.methods(); len(names) > 1 {
		return false, usagef("%s name several ways to unlock", strings.Join(names, " and "))
	}
	return o.password || o.changePIN || o.enrollWith != nil, nil
}

// changesPINOn reports whether the option that chose an enroller only says on which
// TPM a PIN is to be changed.
func (o *options) changesPINOn(e tokens.Enroller) bool {
	_, tpm := e.(*tpm2.Handler)
	return o.changePIN && tpm
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

// rootSections are the options of enrolling, wiping and listing: only the general ones
// where a call has no others, since to make all takes a twelfth of a list.
func (a *app) rootSections(words []string) []section {
	general := a.generalSection()
	if len(words) > 0 && general.suffices(words) {
		return []section{general}
	}
	o, known := &a.options, tokenFlags{}
	enroll := newSection("Enrol")
	f := enroll.flags
	f.BoolVar(&o.password, "password", false, "a passphrase that you type")
	for _, h := range typedFirst(a.enrolling) {
		a.addTokenFlags(f, known, tokens.Enrolling, h)
		a.addOwnFlags(f, known, h)
	}
	f.StringVar(&o.label, "label", "", "call the new keyslot `NAME`")
	f.StringVar(&o.priority, "priority", "", "try the new keyslot `WHEN`: prefer, normal, ignore")
	f.StringVar(&o.compat, "compat", "auto", "systemd `VERSION` and later can read it, 248 to 262")
	f.StringVar(&o.newPINFile, "new-pin-file", "", "read the PIN to be set from `FILE`")
	f.StringVar(&o.crypttab, "write-crypttab", "", "give the volume's line in `FILE` what unlocks it (default: /etc/crypttab)")
	f.Lookup("write-crypttab").NoOptDefVal = systemCrypttab
	o.kdf.addFlags(f)

	wipe := newSection("Wipe")
	f = wipe.flags
	taken := append([]string{"all", "empty"}, wipeWords(a.unlocking)...)
	f.StringSliceVar(&o.wipe, "wipe-slot", nil, "`SLOTS`: "+strings.Join(taken, ", ")+", label:NAME or numbers")
	f.Lookup("wipe-slot").Annotations = map[string][]string{wordsOfOption: taken}

	sections := []section{enroll, wipe, a.unlockSection(known), a.changeSection(), general}
	o.meant = []meant{{enroll.flags, purposeEnroll}, {sections[2].flags, purposeChange}, {sections[3].flags, purposeChange}}
	return sections
}

// generalSection are the options of every command and those of the root that neither
// enrol nor wipe.
func (a *app) generalSection() section {
	s := a.commonSection()
	s.flags.BoolVar(&a.options.listDevices, "list-devices", false, "list the block devices that hold a LUKS2 volume")
	s.flags.BoolVar(&a.options.version, "version", false, "print the version")
	return s
}

// suffices reports whether all options among the words are of this section, and none of
// the words asks what others there are.
func (s section) suffices(words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool {
		name, isLong := strings.CutPrefix(w, "--")
		name, _, _ = strings.Cut(name, "=")
		return asksForVerbs(w) || strings.HasPrefix(w, "-") && (!isLong || s.flags.Lookup(name) == nil)
	})
}

// typedFirst puts the types whose key a person types before those with a device.
func typedFirst(set tokens.Set) tokens.Set {
	set = slices.Clone(set)
	slices.SortStableFunc(set, func(x, y tokens.Handler) int {
		_, xUnlocks := x.(tokens.Unlocker)
		_, yUnlocks := y.(tokens.Unlocker)
		switch {
		case xUnlocks == yUnlocks:
			return 0
		case yUnlocks:
			return -1
		}
		return 1
	})
	return set
}

// addOwnFlags defines what this command, and not the type, adds to the options of a
// type.
func (a *app) addOwnFlags(f *pflag.FlagSet, known tokenFlags, h tokens.Handler) {
	o := &a.options
	switch h.(type) {
	case *recovery.Handler:
		o.addHandoutFlags(f)
		f.BoolVar(&o.confirm, "recovery-confirm", false, "ask to type back two groups of the recovery key")
	case *tpm2.Handler:
		a.sameTPM(known)
		f.BoolVar(&o.changePIN, "tpm2-change-pin", false, "give the TPM2 token another PIN")
	}
}

// addHandoutFlags defines where a new recovery key goes besides the standard output.
func (o *options) addHandoutFlags(f *pflag.FlagSet) {
	f.StringVar(&o.sheet, "recovery-sheet", "", "write a page with the recovery key to `FILE`.pdf or FILE.png")
	f.Var(&escrowFlag{&o.escrow}, "recovery-escrow", "give the recovery key out encrypted to `age1...` only")
	f.StringVar(&o.escrowFile, "recovery-escrow-file", "", "write the encrypted recovery key to `FILE` instead")
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
	if a.manner.takesImages() {
		s.flags.StringVar(&a.options.image.file, "image", "", "the volume is a partition of the disk image `FILE`, instead of DEVICE")
		s.flags.StringVar(&a.options.image.partition, "partition", "", "`WHICH` one: number, UUID or name (default: the newest root)")
	}
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
	for _, h := range a.unlocking {
		a.addTokenFlags(f, known, tokens.Unlocking, h)
	}
	f.BoolVar(&o.empty, "unlock-empty", false, "the empty passphrase")
	f.BoolVar(&o.headless, "unlock-headless", false, "what asks nobody: credentials, tokens without PIN, the empty passphrase")
	addSlot(f, &o.slotName, "unlock-slot", "keyslot `N` only, a number or a label")
	f.StringVar(&a.options.pinFile, "pin-file", "", "read the PIN of the security device from `FILE`")
	return s
}

// flagError is the error of an option. Those of token types say themselves what of
// the value is wrong; pflag would print all of it, and there may be a PIN in it.
func flagError(c *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownOption(c, unknown)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usagef("%s needs a value", spelled(missing.GetFlag()))
	}
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return usagef("%v", err)
	}
	f := invalid.GetFlag()
	if why := invalid.Unwrap(); errors.Is(why, errTwice) || errors.Is(why, errEmpty) {
		return usagef("%s %v", spelled(f), why)
	}
	switch valueOf(f).(type) {
	case *tokenFlag, *escrowFlag:
		return cli.UsageOf("--"+f.Name, invalid.Unwrap())
	case *cli.JSONMode:
		return usagef("--json takes pretty, short or off, not %q", invalid.GetValue())
	case *slotFlag:
		return usagef("--%s: %v", f.Name, invalid.Unwrap())
	}
	return usagef("--%s takes %s, not %q", f.Name, kindOfValue(f), invalid.GetValue())
}

// kindOfValue says in words what an option takes.
func kindOfValue(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "no value"
	case "int", "uint64":
		return "a number"
	}
	return "a list"
}

// unknownOption suggests the option that was meant.
func unknownOption(c *cobra.Command, e *pflag.NotExistError) error {
	if e.GetSpecifiedShortnames() != "" {
		return tokens.WithHint(usagef("there is no option -%s", e.GetSpecifiedName()), "see the options: "+c.CommandPath()+" --help")
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	name := e.GetSpecifiedName()
	return cli.Unknown("unknown option --"+name, name, "--", known)
}

// usagef is an error of the command line.
func usagef(format string, args ...any) error { return tokens.Usagef(format, args...) }

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
