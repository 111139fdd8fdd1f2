package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// testAlone boots a volume that nobody but cryptsetup-unit may open, by an option that
// only that knows.
func (d *distro) testAlone(t *testing.T, tool string) {
	d.write(t, "etc/crypttab", strings.Replace(distroLine, "luks,", "luks,luksmith-token-only,", 1))
	image := d.initrd(t, tool)
	d.write(t, "etc/crypttab", distroLine)
	t.Run("TPM", func(t *testing.T) {
		once(t)
		cell{tpm: true, disk: sealedDisk, by: "tpm2 token"}.boot(t, d, tool, image)
	})
	t.Run("TPM policy moved", func(t *testing.T) {
		once(t)
		m := bootMachine(t, cell{tpm: true, disk: movedDisk}.machine(d, tool, image))
		m.await(`PCR 7`, 3*time.Minute)
		time.Sleep(20 * time.Second)
		if text := m.end(); regexp.MustCompile(stockQuestion[tool]).MatchString(text) {
			t.Fatalf("somebody else asks:\n%s", text)
		}
	})
}

// testChanges changes the installed system as its administrator does, and boots after
// each step with the image that dpkg's triggers have made, or left.
func (d *distro) testChanges(t *testing.T) {
	d.run(t, "dpkg", "-r", "luksmith-fido2") // which wants the very same version
	d.run(t, "update-initramfs", "-u")
	boot := func(t *testing.T, c cell) {
		c.tpm, c.disk = true, sealedDisk
		c.boot(t, d, "initramfs-tools", filepath.Join(d.tree, "boot/initrd.img-"+d.release))
	}
	t.Run("package upgraded", func(t *testing.T) {
		once(t)
		before := d.imageTime(t)
		d.install(t, d.newer(t))
		if d.imageTime(t) == before {
			t.Error("the image is that of before")
		}
		boot(t, cell{by: "tpm2 token"})
	})
	t.Run("kernel added", func(t *testing.T) {
		once(t)
		kernel := d.otherKernel(t)
		d.run(t, "apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", "install", "linux-image-"+kernel)
		old := *d
		defer func() { *d = old }()
		d.release, d.kernel = kernel, filepath.Join(d.tree, "boot/vmlinuz-"+kernel)
		boot(t, cell{by: "tpm2 token"})
	})
	t.Run("switched off", func(t *testing.T) {
		once(t)
		testenv.Run(t, "rm", filepath.Join(d.tree, "etc/luksmith/boot"))
		d.run(t, "update-initramfs", "-u", "-k", d.release)
		boot(t, cell{})
		d.write(t, "etc/luksmith/boot", "all\n")
	})
	t.Run("package removed", func(t *testing.T) {
		once(t)
		d.run(t, "dpkg", "-r", "luksmith")
		boot(t, cell{})
	})
	for _, tool := range []string{"dracut", "dracut-systemd"} { // no trigger makes these images
		t.Run("package removed, "+tool, func(t *testing.T) {
			once(t)
			cell{tpm: true, disk: sealedDisk}.boot(t, d, tool, d.initrd(t, tool))
		})
	}
}

// imageTime is when the image of the installed kernel was made.
func (d *distro) imageTime(t *testing.T) time.Time {
	t.Helper()
	info, err := os.Stat(filepath.Join(d.tree, "boot/initrd.img-"+d.release))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// newer is the same package with a higher version.
func (d *distro) newer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	testenv.Run(t, "dpkg-deb", "-R", d.deb, filepath.Join(dir, "x"))
	testenv.Run(t, "sed", "-i", "s/^Version: .*/&+next/", filepath.Join(dir, "x/DEBIAN/control"))
	testenv.Run(t, "dpkg-deb", "-b", filepath.Join(dir, "x"), filepath.Join(dir, "luksmith.deb"))
	return filepath.Join(dir, "luksmith.deb")
}

// otherKernel is the release of another kernel that the mirror has.
func (d *distro) otherKernel(t *testing.T) string {
	t.Helper()
	d.run(t, "apt-get", "-qq", "update")
	for name := range strings.FieldsSeq(d.run(t, "apt-cache", "pkgnames", "linux-image-")) {
		release := strings.TrimPrefix(name, "linux-image-")
		if strings.HasSuffix(release, "-cloud-amd64") && release[0] >= '0' && release[0] <= '9' && release != d.release {
			return release
		}
	}
	testenv.NotApplicable(t, "the mirror has one kernel only")
	return ""
}
