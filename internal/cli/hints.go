package cli

import (
	"errors"
	"slices"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

// hints returns what to print below an error, at most two lines.
func hints(err error) []string {
	var found []string
	collectHints(err, &found)
	if len(found) == 0 {
		found = defaultHints(err)
	}
	found = slices.Clone(found[:min(len(found), maxHints)])
	if list, ok := errors.AsType[interface {
		error
		Hints() []string
	}](err); ok {
		found = list.Hints() // what there is to choose from
	}
	if p, ok := errors.AsType[*placed](err); ok {
		for i := range found {
			found[i] = strings.ReplaceAll(found[i], " DEVICE", " "+p.words)
		}
	}
	return found
}

// placed is an error about one volume.
type placed struct {
	error
	words string
}

func (p *placed) Unwrap() error { return p.error }

// ForDevice has the hints of an error name the volume where they say DEVICE. words name
// it on a command line; "" leaves the error as it is.
func ForDevice(err error, words string) error {
	if err == nil || words == "" {
		return err
	}
	return &placed{err, words}
}

// collectHints walks the tree of errors from the outside in.
func collectHints(err error, found *[]string) {
	if err == nil {
		return
	}
	if h, ok := err.(interface{ Hint() string }); ok {
		if hint := h.Hint(); hint != "" && !slices.Contains(*found, hint) {
			*found = append(*found, hint)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		collectHints(e.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, child := range e.Unwrap() {
			collectHints(child, found)
		}
	}
}

// defaultHints go with sentinels, the most pressing first. Sentinels without a next
// step that is always right have none.
func defaultHints(err error) []string {
	var found []string
	for _, row := range []struct {
		err  error
		hint string
	}{
		{tokens.ErrLocked, "do not try further PINs; open the volume with a passphrase or the recovery key"},
		{tokens.ErrPolicy, "re-seal it, with a passphrase or the recovery key: cryptenroll reseal DEVICE"},
		{tokens.ErrSeveralDevices, "unplug the others or name one by its path instead of \"auto\""},
		{tokens.ErrOtherDevice, "use the security device of the enrolment, or a passphrase or the recovery key"},
		{tokens.ErrNoDevice, "plug the security device in and try again"},
		{tokens.ErrMalformed, "the token cannot be repaired: wipe its slot and enrol again"},
		{tokens.ErrUnsupported, "a newer version made this token; update luksmith or use another slot"},
		{luks2.ErrLUKS1, "only LUKS2 is supported here; `cryptsetup convert --type luks2 DEVICE` converts a volume that is not open, after a backup of its header"},
		{luks2.ErrNoMemory, "end other programs and try again, or use another keyslot"},
		{tokens.ErrBusy, "end the program that uses the security device (gpg-agent, pcscd, a browser) and try again"},
	} {
		if errors.Is(err, row.err) {
			found = append(found, row.hint)
		}
	}
	return found
}
