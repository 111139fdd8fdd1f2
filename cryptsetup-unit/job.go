package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"luksmith/crypttab"
)

// job is one volume to attach, from a line of crypttab or from the arguments of
// attach, with everything checked that can be checked without a device.
type job struct {
	entry   crypttab.Entry
	options *crypttab.Options
	header  crypttab.Location // detached header; zero without one
}

// newJob checks an entry. The warnings are about what will be ignored. An error about
// a mode that is not supported comes with the job.
func newJob(e crypttab.Entry) (j *job, warnings []string, err error) {
	if err := crypttab.CheckName(e.Name); err != nil {
		return nil, nil, e.Errorf("name", "%w", err)
	}
	if e.Source.Tag == crypttab.TagPath && !strings.HasPrefix(e.Source.Value, "/") {
		return nil, nil, e.Errorf("device", "%q is neither absolute nor a tag such as UUID=", e.Source.Value)
	}
	options, found, err := crypttab.ParseOptions(e.Options)
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
	e := crypttab.Entry{Name: args[0], Source: crypttab.LiteralDeviceRef(args[1])}
	if len(args) > 2 && !isNone(args[2]) {
		e.Key = crypttab.LiteralLocation(args[2])
	}
	if len(args) > 3 && !isNone(args[3]) {
		e.Options = args[3]
	}
	return e, nil
}

func isNone(arg string) bool { return arg == "" || arg == "-" || arg == "none" }

// deviceWait is how long to wait for the volume's device.
func (j *job) deviceWait() time.Duration {
	if j.options.DeviceTimeout != nil {
		return *j.options.DeviceTimeout
	}
	return deviceWait
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

// unsupported refuses what only cryptsetup can do, with the command that does it.
func unsupported(j *job) error {
	what, command := foreignCommand(j)
	if what == "" {
		return nil
	}
	return j.entry.Errorf("options", "%s is not supported here; run: %s", what, shellWords(command))
}

// foreignCommand returns the words of the cryptsetup command for a mode that is not
// supported, and what that is; "" if the volume is one of ours.
func foreignCommand(j *job) (what string, command []string) {
	o := j.options
	switch o.Mode {
	case crypttab.ModePlain:
		return plainCommand(j)
	case crypttab.ModeTcrypt:
		return "tcrypt", append(tcryptFlags(o), j.tail()...)
	case crypttab.ModeBitlk, crypttab.ModeFvault2:
		mode := strings.ToLower(string(o.Mode))
		return mode, append([]string{"cryptsetup", "open", "--type", mode}, j.tail()...)
	}
	if o.LinkVolumeKey != "" {
		return "link-volume-key=", append([]string{"cryptsetup", "open", "--link-vk-to-keyring", o.LinkVolumeKey}, j.tail()...)
	}
	return "", nil
}

// plainCommand spells the defaults out: those of systemd, which read this line
// before, are not those of cryptsetup.
func plainCommand(j *job) (what string, command []string) {
	o := j.options
	cipher, hash, bits := o.Cipher, o.Hash, o.KeySizeBits
	if cipher == "" {
		cipher = "aes-cbc-essiv:sha256"
	}
	if bits == 0 {
		bits = 256
	}
	if hash == "" {
		hash = "ripemd160"
	}
	what = "plain"
	command = []string{"cryptsetup", "open", "--type", "plain", "--cipher", cipher, "--key-size", fmt.Sprint(bits)}
	if o.Swap || o.Temporary != "" {
		j.entry.Key = crypttab.Location{Path: "/dev/urandom"}
	}
	if j.entry.Key.Path == "" {
		command = append(command, "--hash", hash)
	}
	for name, n := range map[string]uint64{"--offset": o.OffsetSectors, "--skip": o.SkipSectors} {
		if n != 0 {
			command = append(command, fmt.Sprintf("%s=%d", name, n))
		}
	}
	command = append(command, j.tail()...)
	switch {
	case o.Swap:
		what, command = "swap", append(command, "&&", "mkswap", "/dev/mapper/"+j.entry.Name)
	case o.Temporary != "":
		what, command = "tmp", append(command, "&&", "mkfs", "-t", o.Temporary, "/dev/mapper/"+j.entry.Name)
	}
	return what, command
}

func tcryptFlags(o *crypttab.Options) []string {
	command := []string{"cryptsetup", "open", "--type", "tcrypt"}
	for _, f := range []struct {
		on   bool
		name string
	}{{o.TcryptHidden, "--tcrypt-hidden"}, {o.TcryptSystem, "--tcrypt-system"}, {o.Veracrypt, "--veracrypt"}} {
		if f.on {
			command = append(command, f.name)
		}
	}
	for _, k := range o.TcryptKeyFiles {
		command = append(command, "--key-file", k)
	}
	return command
}

// tail are the words that every form of the command ends with.
func (j *job) tail() (words []string) {
	if j.entry.Key.Path != "" {
		words = append(words, "--key-file", j.entry.Key.Path)
	}
	if j.options.ReadOnly {
		words = append(words, "--readonly")
	}
	if j.options.Discard {
		words = append(words, "--allow-discards")
	}
	device := j.entry.Source.String()
	return append(words, device, j.entry.Name)
}

// shellWords quotes what a shell would take apart.
func shellWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if w != "&&" && (w == "" || strings.ContainsFunc(w, needsQuotes)) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted[i] = w
	}
	return strings.Join(quoted, " ")
}

func needsQuotes(r rune) bool {
	return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f || strings.ContainsRune("/._-=:,+@%", r))
}
