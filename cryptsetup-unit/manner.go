package main

import (
	"fmt"
	"os"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/version"
)

// manner is what differs between the command's two names, cryptsetup-unit and
// systemd-cryptsetup. Nothing else asks by which name it was called.
type manner interface {
	// bare is what the command does without arguments.
	bare(a *app) error
	// help is the text of --help after a command; nil stands for the whole command.
	help(v *verb) string
	// version is what --version prints.
	version() string
	// takesNames says whether attach VOLUME means a line of crypttab.
	takesNames() bool
	// status is the exit status of an error.
	status(err error) int
	// deviceWait is how long a device is waited for where crypttab does not say it.
	deviceWait() time.Duration
	// triesLeft says how many answers a person has when a key file has failed.
	triesLeft(tries uint32) (left uint32, ask bool)
}

// mannerOf is the manner of a name that the command was called by.
func mannerOf(name string) manner {
	if cli.CalledAsSystemd(name) {
		return systemdManner{name, !startedByInit()}
	}
	return ownManner{name}
}

// startedByInit reports whether the machine starts or a unit of the system runs us:
// somebody has to be asked then, whatever fails. Scripts do not want to wait.
func startedByInit() bool { return os.Getppid() == 1 || inInitrd() }

// ownManner is that of cryptsetup-unit.
type ownManner struct{ name string }

func (m ownManner) bare(*app) error {
	return &usageError{text: "no command given", hint: commandNames(m.name)}
}

func (m ownManner) help(v *verb) string {
	if v == nil {
		return usage(m.name)
	}
	return v.usage(m.name)
}

func (ownManner) version() string { return cli.VersionText("cryptsetup-unit") }

func (ownManner) takesNames() bool { return true }

func (ownManner) status(err error) int { return cli.ExitStatus(err) }

func (ownManner) deviceWait() time.Duration { return deviceWait }

// triesLeft: a key file costs no try.
func (ownManner) triesLeft(tries uint32) (uint32, bool) { return tries, true }

// systemdManner is that of systemd-cryptsetup: what units and scripts that were written
// for it call and read. docs/compatibility.md has a row for each difference that is left.
type systemdManner struct {
	name     string
	scripted bool // neither init nor an initrd calls
}

// bare prints the help.
func (m systemdManner) bare(a *app) error {
	fmt.Fprint(a.out, usage(m.name))
	return nil
}

// help is one text for all commands.
func (m systemdManner) help(*verb) string { return usage(m.name) }

// version is the newest systemd whose options are known, as scripts compare it.
func (systemdManner) version() string {
	return fmt.Sprintf("systemd 262 (luksmith %s)\n+TPM2 +FIDO2 +P11KIT +OPENSSL +LIBCRYPTSETUP\n", version.Version)
}

func (systemdManner) takesNames() bool { return false }

func (m systemdManner) status(err error) int { return cli.ExitStatusAs(m.name, err) }

// deviceWait: for a script, as in systemd, a device is there or not.
func (m systemdManner) deviceWait() time.Duration {
	if m.scripted {
		return 0
	}
	return deviceWait
}

// triesLeft: for a script a key file that failed is one of the tries, as in systemd. At
// boot a person is asked all the same.
func (m systemdManner) triesLeft(tries uint32) (uint32, bool) {
	if !m.scripted || tries == 0 {
		return tries, true
	}
	return tries - 1, tries > 1
}
