package crypttab

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tag is the kind of a device reference.
type Tag string

// The tags that crypttab(5) knows; there is no ID=. TagPath is not a tag at all but a
// device node or an image file.
const (
	TagPath      Tag = ""
	TagUUID      Tag = "UUID"
	TagLabel     Tag = "LABEL"
	TagPartUUID  Tag = "PARTUUID"
	TagPartLabel Tag = "PARTLABEL"
)

var tags = []Tag{TagUUID, TagLabel, TagPartUUID, TagPartLabel}

// DeviceRef names a block device or image file: field 2, and the part behind the
// last colon of a key or header location.
type DeviceRef struct {
	Tag Tag
	// Value is the path or the tag's value, with C escapes decoded and matching
	// quotes removed.
	Value string
	// Literal is Value without decoding. systemd looks for tags by it, so that a
	// device with either name is meant; the two differ only where the line holds a
	// backslash.
	Literal string
}

// ParseDeviceRef reads a field as systemd's fstab_node_to_udev_node does. Every
// text is a valid reference: what has no tag is a path.
func ParseDeviceRef(field string) DeviceRef {
	r := LiteralDeviceRef(field)
	r.Value = unescape(r.Literal)
	return r
}

// LiteralDeviceRef is ParseDeviceRef for text whose escapes were decoded already,
// or that has none: arguments of a command, the parts of an option.
func LiteralDeviceRef(text string) DeviceRef {
	for _, tag := range tags {
		if value, ok := strings.CutPrefix(text, string(tag)+"="); ok {
			value = unquote(value)
			return DeviceRef{Tag: tag, Value: value, Literal: value}
		}
	}
	return DeviceRef{Value: text, Literal: text}
}

// Check says why no device can have that name, with the spelling that was meant, or nil.
func (r DeviceRef) Check() error {
	switch {
	case r.Tag != TagPath && r.Value == "":
		return fmt.Errorf("%w: there is nothing behind %s=", ErrBadValue, r.Tag)
	case r.Tag != TagPath || strings.HasPrefix(r.Value, "/"):
		return nil
	}
	name, value, tagged := strings.Cut(r.Value, "=")
	meant := ""
	switch {
	case isGUID(r.Value):
		meant = "UUID=" + r.Value
	case tagged && strings.EqualFold(name, "ID"):
		meant = "/dev/disk/by-id/" + value
	case tagged && slices.Contains(tags, Tag(strings.ToUpper(name))):
		meant = strings.ToUpper(name) + "=" + value
	case strings.HasPrefix(r.Value, "sd"), strings.HasPrefix(r.Value, "nvme"), strings.HasPrefix(r.Value, "dev/"), strings.HasPrefix(r.Value, "disk/by-"):
		meant = "/dev/" + strings.TrimPrefix(r.Value, "dev/")
	}
	reason := fmt.Errorf("%q is neither absolute nor a tag such as UUID=", r.Value)
	if meant != "" {
		reason = fmt.Errorf("%w; write %s", reason, meant)
	}
	return reason
}

// isGUID reports whether the text has the form of a UUID that is compared without case:
// unlike the serial number of a FAT file system.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)):
			return false
		}
	}
	return true
}

// unquote strips one pair of equal quotes.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// String is the reference as a person writes it: UUID=…, or the path.
func (r DeviceRef) String() string {
	if r.Tag == TagPath {
		return r.Value
	}
	return string(r.Tag) + "=" + r.Value
}

// UdevLinks returns the links that udev makes for a tag, best first; for a path
// the path itself.
func (r DeviceRef) UdevLinks() []string {
	values := []string{r.Value}
	if r.Literal != r.Value && r.Literal != "" {
		values = append(values, r.Literal)
	}
	if r.Tag == TagPath {
		return values
	}
	for i, v := range values {
		if r.Tag == TagUUID && isGUID(v) || r.Tag == TagPartUUID {
			v = strings.ToLower(v) // as udev spells them
		}
		values[i] = "/dev/disk/by-" + strings.ToLower(string(r.Tag)) + "/" + encodeForUdev(v)
	}
	return values
}

// encodeForUdev spells a value as in the names below /dev/disk: ASCII letters,
// digits, "#+-.:=@_" and valid UTF-8 stay, other bytes become \xNN (libblkid's
// blkid_encode_string, systemd's encode_devnode_name).
func encodeForUdev(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r >= utf8.RuneSelf && (r != utf8.RuneError || n > 1),
			'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("#+-.:=@_", r) && n == 1 && r < utf8.RuneSelf:
			b.WriteString(s[:n])
		default:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		}
		s = s[n:]
	}
	return b.String()
}

// Location is where a key file or detached header lies: a path, or a path below
// the root of the file system on another device ("/key:LABEL=stick"). For a header
// on a bare device it is that device.
type Location struct {
	Path   string
	Device *DeviceRef // nil when the path is one of this system
}

// ParseLocation splits PATH[:DEVICE] at the last colon, but only when the right
// part is a tag or an absolute path; else the colon belongs to the path.
func ParseLocation(field string) Location {
	l := LiteralLocation(field)
	l.Path = unescape(l.Path)
	if l.Device != nil {
		l.Device.Value = unescape(l.Device.Literal)
	}
	return l
}

// LiteralLocation is ParseLocation for text without escapes.
func LiteralLocation(text string) Location {
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		ref := LiteralDeviceRef(text[i+1:])
		if ref.Tag != TagPath || strings.HasPrefix(ref.Literal, "/") {
			return Location{Path: text[:i], Device: &ref}
		}
	}
	return Location{Path: text}
}

func (l Location) String() string {
	if l.Device == nil {
		return l.Path
	}
	return l.Path + ":" + l.Device.String()
}

// inSmallLetters is the spelling of a UUID with capital letters by which systemd finds
// the device: it looks for the link of udev, which has what libblkid prints. false if
// there are none.
func (r DeviceRef) inSmallLetters() (string, bool) {
	value, isPath := strings.CutPrefix(r.Value, "/dev/disk/by-uuid/")
	if len(value) != len("00000000-0000-0000-0000-000000000000") || strings.ToLower(value) == value {
		return "", false // those of FAT and NTFS are shorter, and have capitals
	}
	if isPath && r.Tag == TagPath {
		return "/dev/disk/by-uuid/" + strings.ToLower(value), true
	}
	return string(r.Tag) + "=" + strings.ToLower(value), r.Tag == TagUUID || r.Tag == TagPartUUID
}
