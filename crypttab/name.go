package crypttab

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest mapping name in bytes: the kernel limits the uuid of a
// mapping to 128, and that of a LUKS volume is CRYPT-LUKS2-, 32 hexadecimal digits,
// a dash and the name.
const MaxName = 128 - len("CRYPT-LUKS2-") - 32 - 1

// CheckName says why a text cannot be a mapping name, or nil. Spaces, colons and
// UTF-8 are fine. Unlike systemd, quotes, backslashes and control characters are
// refused, because a unit file quotes names with them.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name is empty", ErrBadValue)
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q cannot name a device node", ErrBadValue, name)
	case name == "control":
		return fmt.Errorf("%w: /dev/mapper/control is device-mapper's own", ErrBadValue)
	case len(name) > MaxName:
		return fmt.Errorf("%w: the name has %d bytes, device-mapper takes %d", ErrBadValue, len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: the name is not UTF-8", ErrBadValue)
	}
	if r, ok := unseen(name); ok {
		return fmt.Errorf("%w: the name holds %s", ErrBadValue, r)
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`/"'\`, r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(name[i:])
		return fmt.Errorf("%w: the name holds the character %q", ErrBadValue, string(r))
	}
	return nil
}

// unseen finds a character that cannot be seen or looks like a space, as word processors
// and web pages bring them in, and names it.
func unseen(text string) (string, bool) {
	i := strings.IndexFunc(text, func(r rune) bool {
		return r == 0xfeff || r == 0x200b || r == 0x2060 || r >= 0x80 && unicode.IsSpace(r)
	})
	if i < 0 {
		return "", false
	}
	r, _ := utf8.DecodeRuneInString(text[i:])
	return fmt.Sprintf("the invisible character %U", r), true
}
