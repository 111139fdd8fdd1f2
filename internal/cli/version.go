package cli

import "luksmith/internal/version"

// VersionText is what --version prints for the command name.
func VersionText(name string) string {
	return name + " " + version.Version + " (luksmith)\n" +
		"reads and writes LUKS2 tokens of systemd 248 to 262\n"
}
