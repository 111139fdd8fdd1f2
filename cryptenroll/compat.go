package main

import (
	"path/filepath"
	"regexp"
	"strconv"
)

// The range of systemd versions whose tokens are understood; see docs/formats.md.
const (
	oldestSystemd = 248
	newestSystemd = 262
)

// sharedLibrary is the name of systemd's private library, which carries the
// version: libsystemd-shared-252.so, libsystemd-shared-257.13-1~deb13u1.so.
var sharedLibrary = regexp.MustCompile(`^libsystemd-shared-(\d+)[^/]*\.so$`)

// installedSystemd is the version of the systemd below root, found without running
// it, within the range that is understood. Without systemd it is the newest: then
// nobody but luksmith has to read the token.
func installedSystemd(root string) int {
	found := 0
	for _, pattern := range []string{"usr/lib/systemd", "usr/lib64/systemd", "usr/lib/*/systemd", "lib/systemd"} {
		matches, _ := filepath.Glob(filepath.Join(root, pattern, "libsystemd-shared-*.so"))
		for _, m := range matches {
			if v := sharedLibrary.FindStringSubmatch(filepath.Base(m)); v != nil {
				n, _ := strconv.Atoi(v[1])
				found = max(found, n)
			}
		}
	}
	if found == 0 {
		return newestSystemd
	}
	return min(max(found, oldestSystemd), newestSystemd)
}
