// Package sheet prints a recovery key on one page, as PDF or PNG.
//
// The page is drawn by the program luksmith-sheet, which this package starts and
// speaks to over internal/helper. So the commands carry no fonts, image code and PDF
// library, whose initialisation and pages every start of a command would pay for,
// and these never share a process with anything but the one key they print. This
// package makes the file and writes what the program answers.
package sheet

import (
	"time"

	"luksmith/luks2/secret"
)

// Format is the kind of file.
type Format int

const (
	// PDF is one page of vector graphics; the key can be searched and copied.
	PDF Format = iota
	// PNG is one page of 200 dots per inch in shades of grey.
	PNG
)

// Sheet is what the page says. All texts may come from a header or from anybody:
// what does not belong on paper is shown escaped, what is too long is cut.
type Sheet struct {
	// Key is the recovery key in the form that recovery.Generate gives it. Borrowed.
	Key secret.Secret `json:"-"`
	// UUID and Label are those of the volume. An empty label is left out.
	UUID  string `json:"uuid"`
	Label string `json:"label,omitempty"`
	// Device is the path that the user gave, of the data device.
	Device string `json:"device"`
	// Header is the path of a detached header, else empty.
	Header string `json:"header,omitempty"`
	// Host is the name of the computer; may be empty.
	Host string `json:"host,omitempty"`
	// Keyslot is the number of the slot that the key opens.
	Keyslot int `json:"keyslot"`
	// Name is the user's name for the keyslot; may be empty.
	Name string `json:"name,omitempty"`
	// Created is when the key was enrolled. The page says it in UTC.
	Created time.Time `json:"created"`
	Paper   Paper     `json:"paper"`
}
