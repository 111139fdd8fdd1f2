package dmcrypt

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeFolder is where the nodes or links named after mappings are.
const nodeFolder = "/dev/mapper"

// mangle turns a mapping name into the one that the kernel and /dev/mapper have:
// every byte that udev does not allow in a node's name becomes \xNN. It is
// libdevmapper's mode "auto": a name that is mangled already stays as it is.
// Measured: the kernel stores the mangled form in the name and in the UUID.
func mangle(name string) (string, error) {
	var b strings.Builder
	var escapes, replaced bool
	for i := 0; i < len(name); i++ {
		switch {
		case plain(name[i]):
			b.WriteByte(name[i])
		case isEscape(name[i:]):
			b.WriteString(name[i : i+4])
			i += 3
			escapes = true
		default:
			fmt.Fprintf(&b, `\x%02x`, name[i])
			replaced = true
		}
	}
	if escapes && replaced {
		return "", fmt.Errorf(`%w: %q has both \x escapes and characters that need one`, ErrName, name)
	}
	return b.String(), nil
}

// plain reports whether a byte stays as it is (libdevmapper's white list).
func plain(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("#+-.:=@_", c) >= 0
}

func isEscape(s string) bool {
	return len(s) >= 4 && s[0] == '\\' && s[1] == 'x' && isHex(s[2]) && isHex(s[3])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// unmangle is the inverse, for messages and Info.
func unmangle(kernelName string) string {
	var b strings.Builder
	for i := 0; i < len(kernelName); i++ {
		if isEscape(kernelName[i:]) {
			if c, err := strconv.ParseUint(kernelName[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(kernelName[i])
	}
	return b.String()
}

// kernelName validates a mapping name and returns its mangled form.
func kernelName(name string) (string, error) {
	if name == "" || name == "." || name == ".." || name == "control" || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%w: %q", ErrName, name)
	}
	m, err := mangle(name)
	if err != nil {
		return "", err
	}
	if len(m) > unix.DM_NAME_LEN-1 {
		return "", fmt.Errorf("%w: %q takes %d bytes in the kernel, %d are possible", ErrName, name, len(m), unix.DM_NAME_LEN-1)
	}
	return m, nil
}

// kernelUUID is the UUID of a mapping as dm_prepare_uuid of libcryptsetup makes
// it: CRYPT-LUKS2-, the volume's UUID without dashes, the name.
//
// Unlike libcryptsetup, which cuts it off with a warning, a name for which there
// is no room is refused: at 84 bytes and more the UUIDs of two mappings could be
// the same.
func kernelUUID(t Type, volume, mangledName string) (string, error) {
	u := "CRYPT-" + string(t) + "-" + strings.ReplaceAll(volume, "-", "") + "-" + mangledName
	if room := unix.DM_UUID_LEN - 1; len(u) > room {
		return "", fmt.Errorf("%w: %q is %d bytes too long", ErrName, unmangle(mangledName), len(u)-room)
	}
	return u, nil
}
