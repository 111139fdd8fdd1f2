package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// What every package installs, and what only one packager's distribution boots with.
var (
	everywhere = []string{
		"usr/bin/cryptenroll", "usr/bin/cryptsetup-unit", "usr/lib/luksmith/luksmith-initrd", "usr/lib/luksmith/luksmith-sheet",
		"usr/share/man/man1/cryptenroll.1.gz", "usr/share/man/man8/cryptsetup-unit.8.gz", "usr/share/man/man5/luksmith-crypttab.5.gz",
		"usr/share/bash-completion/completions/cryptenroll", "usr/share/fish/vendor_completions.d/cryptenroll.fish", "usr/share/zsh/site-functions/_cryptenroll",
		"usr/share/doc/luksmith/copyright", "usr/lib/systemd/system-generators/luksmith-generator", "usr/lib/dracut/modules.d/91luksmith/module-setup.sh",
	}
	helperFiles = []string{"usr/lib/luksmith/luksmith-fido2", "usr/lib/luksmith/luksmith-pkcs11"}
	foreignOnly = []string{"usr/share/initramfs-tools", "usr/lib/initcpio", "etc/mkinitfs"}
)

// TestPackagesByTheirOwnTools installs what make packages built with the tools of the
// distributions, has them verify it, and removes it again. Debian has no apk: that
// package is listed.
func TestPackagesByTheirOwnTools(t *testing.T) {
	testenv.NeedEndToEnd(t)
	testenv.NeedRoot(t)
	packages, err := filepath.Abs("../build/packages")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("rpm", func(t *testing.T) {
		testenv.Need(t, "rpm")
		list, root := built(t, packages, "*.rpm"), t.TempDir()
		rpm := func(args ...string) string {
			return testenv.Run(t, "rpm", append([]string{"--root", root}, args...)...)
		}
		testenv.Run(t, "rpm", append([]string{"-K", "--nosignature"}, list...)...)
		rpm(append([]string{"-i", "--nodeps", "--nosignature"}, list...)...)
		rpm("-V", "--nodeps", "luksmith", "luksmith-fido2", "luksmith-pkcs11")
		installed(t, root, helperFiles, "")
		rpm("-e", "luksmith", "luksmith-fido2", "luksmith-pkcs11")
		nothingLeft(t, root)
	})
	t.Run("pacman", func(t *testing.T) {
		testenv.Need(t, "pacman")
		list, root := built(t, packages, "*.pkg.tar.zst"), t.TempDir()
		db := filepath.Join(root, "var/lib/pacman")
		if err := os.MkdirAll(db, 0o755); err != nil {
			t.Fatal(err)
		}
		pacman := func(args ...string) string {
			return testenv.Run(t, "pacman", append([]string{"--root", root, "--dbpath", db, "--noconfirm"}, args...)...)
		}
		pacman(append([]string{"-U", "--assume-installed", "libfido2=1", "--assume-installed", "p11-kit=1"}, list...)...)
		if out := pacman("-Qkk"); !strings.Contains(out, " 0 altered files") || strings.Contains(out, "warning") {
			t.Error(out)
		}
		installed(t, root, helperFiles, "usr/lib/initcpio")
		pacman("-R", "luksmith-fido2", "luksmith-pkcs11", "luksmith")
		nothingLeft(t, root)
	})
	t.Run("apk", func(t *testing.T) {
		root := t.TempDir()
		testenv.Run(t, "tar", "-C", root, "-xzf", built(t, packages, "*.apk")[0])
		info, err := os.ReadFile(filepath.Join(root, ".PKGINFO"))
		if err != nil || !strings.Contains(string(info), "pkgname = luksmith\n") || !strings.Contains(string(info), "datahash = ") {
			t.Errorf("%v: %s", err, info)
		}
		installed(t, root, nil, "etc/mkinitfs")
	})
}

// built returns the packages of one kind.
func built(t *testing.T, dir, pattern string) []string {
	t.Helper()
	list, _ := filepath.Glob(filepath.Join(dir, pattern))
	if len(list) == 0 {
		testenv.Missing(t, "packages "+pattern+" below build/packages", "make packages")
	}
	return list
}

// installed checks what a package put below root, that its links lead somewhere, and
// that nothing is switched on.
func installed(t *testing.T, root string, more []string, boots string) {
	t.Helper()
	for _, path := range append(more, everywhere...) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	for _, path := range foreignOnly {
		if _, err := os.Stat(filepath.Join(root, path)); (err == nil) != (path == boots) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "etc/luksmith/boot")); err == nil {
		t.Error("the package switches itself on")
	}
}

// nothingLeft wants no file of ours below root.
func nothingLeft(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(strings.TrimPrefix(path, root), "luksmith") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
