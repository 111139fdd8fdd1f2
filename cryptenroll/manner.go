package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// manner is what differs between the command's two names, cryptenroll and
// systemd-cryptenroll. Nothing else asks by which name it was called.
type manner interface {
	// expand completes abbreviated options of the command line.
	expand(flags *pflag.FlagSet, args []string) ([]string, error)
	// verbs are the subcommands.
	verbs(a *app, words []string) []*cobra.Command
	// refuseAmbiguous refuses a word that is a subcommand and a volume in this folder.
	refuseAmbiguous(words []string) error
	// refuseCommand refuses operands that are probably no devices.
	refuseCommand(args []string) error
	// explainsInJSON says whether errors come out as JSON too.
	explainsInJSON() bool
	// takesImages says whether partitions of disk images can be named.
	takesImages() bool
	// version is what --version prints.
	version() string
	// prepare changes how messages come out.
	prepare(m *cli.Messages)
	// mayOnlyList says whether options that have no effect on a list are taken.
	mayOnlyList() bool
	// list prints the keyslots of a volume.
	list(l *listing) error
	// confirmsWipe says whether a terminal is asked before a wipe.
	confirmsWipe() bool
	// keyring says what becomes of passphrases in the kernel keyring.
	keyring() askpass.CacheMode
	// noDevices is the sentence about a list of devices without any; text is ours.
	noDevices(kind, text string) string
	// question is the text that asks for a PIN.
	question(p *tokens.Prompt) string
	// advises says whether what was not asked about is said: that there is no
	// recovery key.
	advises() bool
	// noSuchSlot is the error for a keyslot of --wipe-slot= that is not there; nil
	// wipes the others and lets report say it.
	noSuchSlot(path string, slot int, have []luks2.Keyslot) error
	// nothingToWipe says that --wipe-slot= selects nothing.
	nothingToWipe(m *cli.Messages, p *plan, words string)
	// report says what an enrolment or wipe came to.
	report(r *reporter, out *outcome) error
}

// mannerOf is the manner of a name that the command was called by.
func mannerOf(name string) manner {
	if cli.CalledAsSystemd(name) {
		return systemdManner{name}
	}
	return ownManner{name}
}

// ownManner is that of cryptenroll.
type ownManner struct{ name string }

// expand leaves the command line as it is: what is nearly an option is suggested.
func (ownManner) expand(_ *pflag.FlagSet, args []string) ([]string, error) { return args, nil }

func (ownManner) verbs(a *app, words []string) []*cobra.Command { return a.verbs(words) }

// refuseAmbiguous is about a command as the last word, without a device behind it. A
// file of that name counts if it holds a volume.
func (o ownManner) refuseAmbiguous(words []string) error {
	if len(words) == 0 {
		return nil
	}
	word := words[len(words)-1]
	if !isVerb(word) || !holdsVolume(word) {
		return nil
	}
	return tokens.WithHint(usagef("%s is a command, which would need a device behind it, and a volume in this folder", word),
		fmt.Sprintf("the volume is named so: %s ./%s", o.name, word))
}

// holdsVolume reports whether there is a file or device of that name that begins as a
// LUKS volume does.
func holdsVolume(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 6)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic[:4]) == "LUKS"
}

func (o ownManner) refuseCommand(args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, v := range verbTable {
		names = append(names, v.name)
	}
	if _, err := os.Stat(args[0]); err != nil && !strings.Contains(args[0], "/") && (len(args) > 1 || crypttab.Nearest(args[0], names) != "") {
		return tokens.WithHint(cli.Unknown(fmt.Sprintf("unknown command %q", args[0]), args[0], "", names), "see the commands: "+o.name+" --help")
	}
	if len(args) > 1 {
		return usagef("one volume can be listed at a time, not %d", len(args))
	}
	return nil
}

func (ownManner) explainsInJSON() bool { return true }

func (ownManner) takesImages() bool { return true }

func (o ownManner) version() string { return cli.VersionText(o.name) }

func (ownManner) prepare(*cli.Messages) {}

func (ownManner) mayOnlyList() bool { return false }

func (ownManner) list(l *listing) error { return l.table() }

func (ownManner) confirmsWipe() bool { return true }

func (ownManner) keyring() askpass.CacheMode { return askpass.CacheReadOnly }

func (ownManner) noDevices(_, text string) string { return text }

func (ownManner) question(p *tokens.Prompt) string { return p.Text }

func (ownManner) advises() bool { return true }

func (ownManner) noSuchSlot(path string, slot int, have []luks2.Keyslot) error {
	return noKeyslot(path, slot, have)
}

func (ownManner) nothingToWipe(m *cli.Messages, p *plan, words string) {
	m.Plain(cli.LevelInfo, "No keyslot of %s matches --wipe-slot=%s; nothing was changed.", p.path, words)
}

func (ownManner) report(r *reporter, out *outcome) error { return r.report(out) }

// noKeyslot is luks2.ErrNoKeyslot with the keyslots that there are.
func noKeyslot(path string, slot int, have []luks2.Keyslot) error {
	return &noSuchKeyslot{path: path, slot: slot, have: have}
}

type noSuchKeyslot struct {
	path string
	slot int
	have []luks2.Keyslot
}

func (e *noSuchKeyslot) Error() string {
	return fmt.Sprintf("%s has no keyslot %d; it has %s", e.path, e.slot, slotNumbers(e.have))
}

// Is makes it luks2.ErrNoKeyslot.
func (e *noSuchKeyslot) Is(target error) bool { return target == luks2.ErrNoKeyslot }

// slotNumbers lists keyslots: "0, 1 and 7".
func slotNumbers(list []luks2.Keyslot) string {
	text := "none"
	for i, k := range list {
		switch {
		case i == 0:
			text = fmt.Sprint(k.ID)
		case i == len(list)-1:
			text += fmt.Sprintf(" and %d", k.ID)
		default:
			text += fmt.Sprintf(", %d", k.ID)
		}
	}
	return text
}
