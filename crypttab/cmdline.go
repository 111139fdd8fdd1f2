package crypttab

import (
	"fmt"
	"slices"
	"strings"
)

// CommandLine is the File of entries that the kernel command line defines.
const CommandLine = "/proc/cmdline"

// KernelLine is what the luks.* and rd.luks.* words of the kernel command line say.
type KernelLine struct {
	Enabled      bool // luks=
	ReadCrypttab bool // luks.crypttab=
	// Warnings are the words that were ignored because of their form.
	Warnings []*SyntaxError

	volumes        []kernelVolume // in the order in which their UUIDs came up
	allowList      bool           // luks.uuid= or luks.name= was given
	defaultOptions string
	defaultKey     string
}

// kernelVolume collects the words about one UUID.
type kernelVolume struct {
	uuid    string
	name    string
	data    string
	options string
	hasOpts bool
	key     Location
	wanted  bool // by luks.uuid= or luks.name=
}

// ParseKernelLine reads the text of /proc/cmdline as systemd's generator does.
// Words that begin with "rd." count in the initrd only.
func ParseKernelLine(text string, initrd bool) *KernelLine {
	k := &KernelLine{Enabled: true, ReadCrypttab: true}
	for _, word := range splitKernelLine(text) {
		name, value, has := strings.Cut(word, "=")
		if rest, ok := strings.CutPrefix(name, "rd."); ok {
			if !initrd {
				continue
			}
			name = rest
		}
		if name != "luks" && !strings.HasPrefix(name, "luks.") {
			continue
		}
		if err := k.apply(name, value, has); err != nil {
			k.Warnings = append(k.Warnings, &SyntaxError{File: CommandLine, Field: word, Err: err})
		}
	}
	return k
}

func (k *KernelLine) apply(name, value string, has bool) error {
	switch name {
	case "luks":
		return kernelBool(&k.Enabled, value, has)
	case "luks.crypttab":
		return kernelBool(&k.ReadCrypttab, value, has)
	}
	if !slices.Contains([]string{"luks.uuid", "luks.name", "luks.data", "luks.key", "luks.options"}, name) {
		return ErrUnknownOption
	}
	if !has {
		return fmt.Errorf("%w: the value is missing", ErrBadValue)
	}
	if name == "luks.uuid" {
		v := k.volume(strings.TrimPrefix(value, "luks-"))
		v.wanted, k.allowList = true, true
		return nil
	}
	uuid, rest := splitUUID(value)
	switch {
	case name == "luks.key":
		return k.applyKey(value)
	case name == "luks.options" && rest == "":
		return k.applyDefaultOptions(value)
	case rest == "":
		return fmt.Errorf("%w: want UUID=VALUE", ErrBadValue)
	case name == "luks.options":
		v := k.volume(uuid)
		v.options, v.hasOpts = rest, true
	case name == "luks.data":
		k.volume(uuid).data = rest
	case name == "luks.name":
		v := k.volume(uuid)
		v.name, v.wanted, k.allowList = rest, true, true
	}
	return nil
}

// applyDefaultOptions keeps the last of several words, as systemd does.
func (k *KernelLine) applyDefaultOptions(value string) error {
	before := k.defaultOptions
	if k.defaultOptions = value; before != "" && before != value {
		return fmt.Errorf("it replaces luks.options=%s, which stands before it; all options belong into one word", before)
	}
	return nil
}

// applyKey reads luks.key=[UUID=]PATH[:DEVICE]. Without UUID a colon belongs to the
// path, and with one that is not a UUID the word is ignored.
func (k *KernelLine) applyKey(value string) error {
	uuid := value[:len(value)-len(strings.TrimLeftFunc(value, isUUIDSpelling))]
	rest, ok := strings.CutPrefix(value[len(uuid):], "=")
	if !ok {
		k.defaultKey = value
		if path, device, has := strings.Cut(value, ":"); has && ParseDeviceRef(device).Check() == nil {
			return fmt.Errorf("without a UUID all of it is a path; for a file on another device: luks.key=UUID=%s:%s", path, device)
		}
		return nil
	}
	if !validUUID(uuid) {
		return fmt.Errorf("%w: %q is not a UUID", ErrBadValue, uuid)
	}
	v := k.volume(uuid)
	if v.key = (Location{}); !absent(rest) {
		v.key = ParseLocation(rest)
	}
	return nil
}

func isUUIDSpelling(r rune) bool {
	return r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

func isHexDash(r rune) bool {
	return r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F'
}

// validUUID accepts 32 hexadecimal digits, plain or with the dashes of a UUID.
func validUUID(s string) bool {
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		s = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	return len(s) == 32 && !strings.Contains(s, "-") && strings.TrimLeftFunc(s, isHexDash) == ""
}

// splitUUID is the generator's sscanf "%m[0-9a-fA-F-]=%ms": rest is "" when the form
// does not fit, and ends at white space.
func splitUUID(value string) (uuid, rest string) {
	uuid = value[:len(value)-len(strings.TrimLeftFunc(value, isHexDash))]
	rest, ok := strings.CutPrefix(value[len(uuid):], "=")
	if uuid == "" || !ok {
		return "", ""
	}
	rest = strings.TrimLeft(rest, spaces)
	if i := strings.IndexAny(rest, spaces); i >= 0 {
		rest = rest[:i]
	}
	return uuid, rest
}

func kernelBool(b *bool, value string, has bool) error {
	if !has {
		*b = true
		return nil
	}
	parsed, err := ParseBool(value)
	if err == nil {
		*b = parsed
	}
	return err
}

// volume finds or adds the volume with a UUID.
func (k *KernelLine) volume(uuid string) *kernelVolume {
	if v := k.find(uuid); v != nil {
		return v
	}
	k.volumes = append(k.volumes, kernelVolume{uuid: uuid})
	return &k.volumes[len(k.volumes)-1]
}

func (k *KernelLine) find(uuid string) *kernelVolume {
	i := slices.IndexFunc(k.volumes, func(v kernelVolume) bool { return v.uuid == uuid || isGUID(uuid) && strings.EqualFold(v.uuid, uuid) })
	if i < 0 {
		return nil
	}
	return &k.volumes[i]
}

// Select combines crypttab and kernel command line into the volumes that systemd's
// generator would make units for, noauto ones included. With luks.uuid= or
// luks.name= only the listed UUIDs count; luks.options= for a UUID replaces the
// fourth field; names and keys of crypttab go before those of the command line.
// Of two volumes with one name the first is taken. The notes say what was left out.
func (k *KernelLine) Select(f *File) (entries []Entry, notes []*SyntaxError) {
	if !k.Enabled {
		return nil, nil
	}
	taken := map[string]bool{}
	add := func(e Entry) {
		if taken[e.Name] {
			notes = append(notes, e.Errorf("name", "%q is already defined above; ignored", e.Name))
			return
		}
		taken[e.Name] = true
		entries = append(entries, e)
	}
	done := map[*kernelVolume]bool{}
	for _, e := range f.Entries {
		if !k.ReadCrypttab {
			break
		}
		v := k.matching(&e)
		if k.allowList && v == nil {
			notes = append(notes, e.Errorf("device", "%q is not in luks.uuid= or luks.name= on the kernel command line; ignored", e.Name))
			continue
		}
		if v != nil {
			done[v] = true
			if v.hasOpts {
				e.Options = v.fieldOptions(v.options)
			}
		}
		add(e)
	}
	for i := range k.volumes {
		if v := &k.volumes[i]; v.wanted && !done[v] {
			add(k.entry(v))
		}
	}
	return entries, notes
}

// matching returns the volume that a line of crypttab is about: the UUID is that of
// the tag, of the link, or of a name such as luks-UUID.
func (k *KernelLine) matching(e *Entry) *kernelVolume {
	if e.Source.Tag == TagUUID {
		return k.find(e.Source.Literal)
	}
	if uuid, ok := strings.CutPrefix(e.Source.Literal, "/dev/disk/by-uuid/"); ok && e.Source.Tag == TagPath {
		return k.find(uuid)
	}
	if uuid, ok := strings.CutPrefix(e.Name, "luks-"); ok {
		return k.find(uuid)
	}
	return nil
}

// entry makes the line for a volume that only the command line knows.
func (k *KernelLine) entry(v *kernelVolume) Entry {
	e := Entry{File: CommandLine, Name: unescape(v.name), Source: ParseDeviceRef("UUID=" + v.uuid), Key: v.key}
	if e.Name == "" {
		e.Name = "luks-" + v.uuid
	}
	if v.data != "" {
		e.Source = ParseDeviceRef(v.data)
	}
	if e.Key.Path == "" && !absent(k.defaultKey) {
		e.Key = Location{Path: unescape(k.defaultKey)}
	}
	options := k.defaultOptions
	if v.hasOpts {
		options = v.options
	}
	e.Options = v.fieldOptions(options)
	return e
}

func (v *kernelVolume) fieldOptions(text string) string {
	if text = unescape(text); absent(text) {
		return ""
	}
	return text
}

// splitKernelLine splits at white space, with quotes and without errors: systemd's
// EXTRACT_UNQUOTE|EXTRACT_RELAX|EXTRACT_RETAIN_ESCAPE.
func splitKernelLine(text string) (words []string) {
	var b strings.Builder
	quote, inWord := rune(0), false
	flush := func() {
		if inWord {
			words = append(words, b.String())
		}
		b.Reset()
		inWord = false
	}
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inWord = r, true
		case quote == 0 && strings.ContainsRune(" \t\n\r", r):
			flush()
		default:
			b.WriteRune(r)
			inWord = true
		}
	}
	flush()
	return words
}
