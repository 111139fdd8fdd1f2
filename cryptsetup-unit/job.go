package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/tokens"
)

// job is one volume to attach, from a line of crypttab or from the arguments of
// attach, with everything checked that can be checked without a device.
type job struct {
	entry   crypttab.Entry
	options *crypttab.Options
	header  crypttab.Location // detached header; zero without one
	turn    *turn             // to ask; set when the volumes of a run are known
}

// newJob checks an entry by the grammar of its options. The warnings are about what will be ignored. An error about
// a mode that is not supported comes with the job.
func newJob(e crypttab.Entry, g crypttab.Grammar) (j *job, warnings []string, err error) {
	if err := crypttab.CheckName(e.Name); err != nil {
		return nil, nil, e.Errorf("name", "%w", err)
	}
	if err := e.Source.Check(); err != nil {
		return nil, nil, e.Errorf("device", "%w", err)
	}
	options, found, err := g.ParseOptions(e.Options)
	for _, w := range found {
		warnings = append(warnings, e.Errorf(w.Field, "%w", w.Err).Error())
	}
	if err != nil {
		if syntax, ok := errors.AsType[*crypttab.SyntaxError](err); ok {
			err = e.Errorf(syntax.Field, "%w", syntax.Err)
		}
		return nil, warnings, err
	}
	// As in systemd: without the key file there is still the prompt.
	if e.Key.Path != "" && !strings.HasPrefix(e.Key.Path, "/") {
		warnings = append(warnings, e.Errorf("key", "%q is not absolute; ignored", e.Key.Path).Error())
		e.Key = crypttab.Location{}
	}
	j = &job{entry: e, options: options, header: options.HeaderLocation()}
	return j, warnings, unsupported(j)
}

// entryOfArguments makes an entry of VOLUME DEVICE [KEY] [OPTIONS]. systemd passes
// "", "-" and "none" for what is missing.
func entryOfArguments(args []string) (crypttab.Entry, error) {
	if len(args) < 2 {
		return crypttab.Entry{}, &usageError{text: "attach: too few arguments", hint: "usage: attach VOLUME DEVICE [KEY-FILE] [OPTIONS]"}
	}
	e := crypttab.Entry{Name: args[0], Source: crypttab.LiteralDeviceRef(absoluteImage(args[1]))}
	if len(args) > 2 && !isNone(args[2]) {
		e.Key = crypttab.LiteralLocation(args[2])
	}
	if len(args) > 3 && !isNone(args[3]) {
		e.Options = args[3]
	}
	return e, nil
}

// absoluteImage is the path of an image file that was named from the working folder.
func absoluteImage(path string) string {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		if whole, err := filepath.Abs(path); err == nil {
			return whole
		}
	}
	return path
}

func isNone(arg string) bool { return arg == "" || arg == "-" || arg == "none" }

// configure gives a handler what the line says about its type. An error is about a value
// that systemd takes and the handler cannot use; the parser of crypttab, which asks the
// same handlers, has left out all others. It costs the tokens of the type.
func (j *job) configure(h tokens.Handler) error {
	for _, o := range h.Options() {
		if o.Place&tokens.Crypttab == 0 {
			continue
		}
		for _, w := range j.options.Words {
			if w.Name != o.Name {
				continue
			}
			if err := o.Set(w.Value); err != nil {
				return j.entry.Errorf("options: "+w.String(), "%w", err)
			}
		}
	}
	return nil
}

// deviceWait is how long to wait for the volume's device.
func (at *attempt) deviceWait() time.Duration {
	if limit := at.job.options.DeviceTimeout; limit != nil {
		return *limit
	}
	return at.as.manner.deviceWait()
}

// keyDeviceWait is how long to wait for the device of the key file. Without
// keyfile-timeout= that is as long as a person can type instead; where nobody is
// asked, and after the question, as long as for the volume itself.
func (j *job) keyDeviceWait(asked bool) time.Duration {
	switch o := j.options; {
	case o.KeyFileTimeout != nil:
		return *o.KeyFileTimeout
	case asked:
		return max(deviceWait, o.Timeout)
	}
	return deviceWait
}

// slots are the keyslots that key-slot= allows, nil for all.
func (j *job) slots() []int {
	if j.options.KeySlot == crypttab.AnySlot {
		return nil
	}
	return []int{j.options.KeySlot}
}

// discovered are the places where a key file is looked for without being named.
func (j *job) discovered(root string) []string {
	file := j.entry.Name + ".key"
	return []string{filepath.Join(root, "/etc/cryptsetup-keys.d", file), filepath.Join(root, "/run/cryptsetup-keys.d", file)}
}

// attachCommand is the command that attaches the volume once more.
func (a *app) attachCommand(j *job) string {
	e := j.entry
	words := []string{"cryptsetup-unit", "attach", e.Name}
	switch {
	case e.File == a.crypttabPath(""), e.File == crypttab.CommandLine:
	case strings.HasPrefix(e.File, discoveredIn):
		words = []string{"cryptsetup-unit", "attach-all", "--discover", e.Name}
	case e.File != "":
		words = []string{"cryptsetup-unit", "attach-all", "--crypttab=" + e.File, e.Name}
	default:
		words = append(words, e.Source.String())
		if key := e.Key.String(); key != "" || e.Options != "" {
			words = append(words, orDash(key), e.Options)
		}
		if e.Options == "" && len(words) > 4 {
			words = words[:5]
		}
	}
	return cli.ShellWords(words...)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
