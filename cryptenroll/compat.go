package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"luksmith/tokens"
)

// The range of systemd versions whose tokens are understood; see docs/formats.md.
const (
	oldestSystemd = 248
	newestSystemd = tokens.NewestSystemd
)

// installedSystemd is the version of the systemd below root, found without running
// it, within the range that is understood. Without systemd it is the newest: then
// nobody but luksmith has to read the token.
func installedSystemd(root string) int {
	found := 0
	for _, dir := range libraryFolders(root) {
		entries, _ := os.ReadDir(filepath.Join(dir, "systemd")) // absent in most
		for _, e := range entries {
			found = max(found, libraryVersion(e.Name()))
		}
	}
	if found == 0 {
		return newestSystemd
	}
	return min(max(found, oldestSystemd), newestSystemd)
}

// libraryFolders are those that have systemd's private libraries on one
// distribution or another. Debian's is named after the architecture.
func libraryFolders(root string) []string {
	folders := []string{filepath.Join(root, "lib"), filepath.Join(root, "usr/lib"), filepath.Join(root, "usr/lib64")}
	entries, _ := os.ReadDir(filepath.Join(root, "usr/lib"))
	for _, e := range entries {
		if strings.Contains(e.Name(), "-linux-") {
			folders = append(folders, filepath.Join(root, "usr/lib", e.Name()))
		}
	}
	return folders
}

// libraryVersion is the version in the name of systemd's private library:
// libsystemd-shared-252.so, libsystemd-shared-257.13-1~deb13u1.so. It is 0 for
// anything else.
func libraryVersion(name string) int {
	version, ok := strings.CutPrefix(name, "libsystemd-shared-")
	if !ok || !strings.HasSuffix(version, ".so") {
		return 0
	}
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	n, err := strconv.Atoi(version[:digits])
	if err != nil {
		return 0
	}
	return n
}
