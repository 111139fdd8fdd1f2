// Package spec reads the files of cryptenroll ensure: which keyslots volumes shall
// have, in YAML or JSON. It says what is wrong with a file by its name, the line and
// the field, and describes what may stand in one as a JSON Schema. docs/ensure.md is
// the manual of the format.
//
// The package knows no volume and asks no device. What may be said of a token type
// are the options of its handler, so a new type needs nothing here; values of options
// are kept as text, for the handler to read.
package spec

import (
	"fmt"

	"luksmith/tokens"
)

// Version is the format that this package reads.
const Version = 1

// MaxLabel is the longest label in a spec, in bytes: ensure puts [Replaced] or
// [Undelivered] behind it.
const MaxLabel = tokens.MaxLabel - len(Undelivered)

// Replaced stands behind the label of a keyslot that ensure made anew, until the old
// one is wiped.
const Replaced = " (replaced)"

// Undelivered stands behind the label of a recovery key's keyslot until somebody has
// the key.
const Undelivered = " (not handed out)"

// Spec is what one file says.
type Spec struct {
	Place
	Devices  []Text // the volumes, where the command line names none
	Compat   Text   // as --compat=; empty for auto
	Unlock   []Way  // tried in this order; none for what asks nobody
	Require  *Require
	Keyslots []Keyslot
	Absent   []Absent
	Unlisted Unlisted
	Crypttab *Crypttab
	// Initrd is the command that makes the initrd anew after a change: a program and
	// its arguments, [Auto] alone for the one of the distribution, nil for none.
	Initrd []string
}

// Auto in Spec.Initrd is the command of the distribution.
const Auto = "auto"

// Crypttab is what the line of each volume in a crypttab shall have.
type Crypttab struct {
	Place
	File    string // "" for that of the machine
	Options []string
}

// Text is a value and where it stands.
type Text struct {
	Place
	Value string
}

// Way is a way to open a volume: By is the name of a token type, or one of the
// constants.
type Way struct {
	Place
	By    string
	Value string // the device, file, credential or description of a key
}

// Ways that need no token, and Headless, which is all that asks nobody.
const (
	KeyFile    = "key-file"
	Credential = "credential"
	Keyring    = "keyring"
	Empty      = "empty"
	Headless   = "headless"
	Ask        = "ask"
)

// File is a source of a passphrase or recovery key: a file whose last line end is not
// part of it.
const File = "file"

// Keyslot is a way in that the volumes shall have.
type Keyslot struct {
	Place
	Label    string // its identity
	Type     string // [Password] or the name of a token type
	Priority Text
	Require  *Require
	// Options are those of the type, or of a passphrase's KDF, in the order of the
	// file.
	Options []Option
	PINFile Text // the PIN to be set, or that of the security device
	// From is where a passphrase or recovery key comes from, nil for a recovery key
	// that is made; To says who gets that.
	From   *Way
	To     *Handout
	Rebind Rebind
	// KeepOld leaves the keyslot that this one replaces until the volume was opened
	// with the new one in a boot.
	KeepOld bool
}

// Handout is where a new recovery key goes: to one of File, Escrow with File, Sheet,
// Command and Terminal. "{uuid}" in a path or argument is the volume's.
type Handout struct {
	Place
	File     string   // for the key, or for the envelope of Escrow
	Escrow   []Text   // public keys of age
	Sheet    string   // a PDF or PNG for printing
	Command  []string // a program and its arguments, which read the key
	Terminal bool     // a person who types part of it back
}

// Types of keyslots that this package knows by name.
const (
	Password = tokens.KindPassword
	Recovery = "recovery"
)

// Option is a value for an option of a token type.
type Option struct {
	Place
	Name  string // on the command line, without dashes
	Value string // "" for a switch
}

// Rebind says when a keyslot is made anew although it demands what the spec says.
type Rebind string

// The zero value is WhenClosed.
const (
	WhenClosed Rebind = "when-not-opening" // its device refuses in the present state
	Never      Rebind = "never"
	Always     Rebind = "always" // at each call
)

// Absent selects keyslots that volumes shall not have: by one of Label, Type and
// OpensWith. Those with a label of Spec.Keyslots are never meant.
type Absent struct {
	Place
	Label, Type string
	OpensWith   string // a key file
	// AfterBoot keeps them until the volume was opened with another keyslot of the
	// spec in a boot.
	AfterBoot bool
}

// Unlisted says what becomes of keyslots that the spec does not name.
type Unlisted string

// The zero value is Keep.
const (
	Keep   Unlisted = "keep"
	Refuse Unlisted = "refuse"
	Wipe   Unlisted = "wipe"
)

// Require names what the machine must have.
type Require struct {
	Place
	Needs []string // names of token types, [SecureBoot]
	// Skip leaves out what is required for; else it is an error.
	Skip bool
}

// SecureBoot in Require.Needs wants Secure Boot to be on.
const SecureBoot = "secure-boot"

// Place is where something stands in a spec.
type Place struct {
	Name  string // of the file
	Line  int    // from 1; 0 for the whole file
	Field string // "keyslots[0].pcrs"; empty for the whole file
}

// Errorf is what is wrong there. It is [tokens.ErrUsage].
func (p Place) Errorf(format string, args ...any) error { return p.Wrap(fmt.Errorf(format, args...)) }

// Wrap says where an error comes from.
func (p Place) Wrap(err error) error { return &Error{p, err} }

// Error is what is wrong with a spec. Its text is "FILE:LINE: FIELD: reason".
type Error struct {
	Place
	Err error
}

func (e *Error) Error() string {
	text := e.Name
	if e.Line > 0 {
		text += fmt.Sprintf(":%d", e.Line)
	}
	if e.Field != "" {
		text += ": " + e.Field
	}
	return text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Is makes it tokens.ErrUsage.
func (e *Error) Is(target error) bool { return target == tokens.ErrUsage }
