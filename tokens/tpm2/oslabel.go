package tpm2

import (
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"luksmith/tokens"
)

// OSLabel names the running system, for telling apart the tokens of several
// versions: "Debian GNU/Linux 12 (bookworm), 6.1.0-28-amd64". It is a valid label.
func (h *Handler) OSLabel() string {
	var release string
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	return joinLabel(h.Paths.osName(), release)
}

// osName is PRETTY_NAME of os-release(5), or "".
func (p Paths) osName() string {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := os.ReadFile(p.join(path))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
		break
	}
	return ""
}

// joinLabel joins the names of system and kernel. What is too long for a label is
// cut off the former: versions differ in the latter.
func joinLabel(system, kernel string) string {
	clean := func(text string, most int) string {
		text = strings.ToValidUTF8(text[:min(len(text), max(most, 0))], "")
		return strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return -1
			}
			return r
		}, text))
	}
	kernel = clean(kernel, tokens.MaxLabel)
	system = clean(system, tokens.MaxLabel-len(", ")-len(kernel))
	if system == "" || kernel == "" {
		return system + kernel
	}
	return system + ", " + kernel
}
