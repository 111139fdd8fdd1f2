package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"luksmith/internal/test/testenv"
)

// kernel is what .ci/install-deps unpacked from Debian's kernel package.
type kernel struct {
	image   string // vmlinux, or what the package has if that could not be extracted
	modules string // the folder lib/modules/RELEASE
	release string
	index   *moduleIndex
}

// findKernel skips the test where there is no kernel to boot.
func findKernel(t testing.TB) *kernel {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		testenv.NotApplicable(t, "the guest is an x86-64 machine")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		testenv.NotApplicable(t, "no cache folder for the kernel: "+err.Error())
	}
	dir := filepath.Join(cache, "luksmith", "kernel")
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	modules, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*"))
	if len(images) != 1 || len(modules) != 1 {
		testenv.Missing(t, "Debian's kernel in "+dir, "sh .ci/install-deps unpacks it")
	}
	testenv.Need(t, "xz", "zstd", "gzip") // whichever the kernel is packed with
	vmlinux := filepath.Join(dir, "boot", "vmlinux")
	if err := extractVmlinux(images[0], vmlinux); err != nil {
		t.Fatalf("extracting the kernel from %s: %v", images[0], err)
	}
	index, err := readModuleIndex(modules[0])
	if err != nil {
		t.Fatal(err)
	}
	return &kernel{vmlinux, modules[0], filepath.Base(modules[0]), index}
}

// extractVmlinux writes the ELF file that a bzImage carries compressed, unless it
// is there. Booted through QEMU's PVH entry it saves the guest the decompression,
// which takes longer than all the rest of a boot where nothing is accelerated.
func extractVmlinux(bzImage, vmlinux string) error {
	if _, err := os.Stat(vmlinux); err == nil {
		return nil
	}
	data, err := os.ReadFile(bzImage)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		magic   string
		command []string
	}{
		{"\xfd7zXZ\x00", []string{"xz", "-dc", "--single-stream"}},
		{"\x28\xb5\x2f\xfd", []string{"zstd", "-dc"}},
		{"\x1f\x8b\x08", []string{"gzip", "-dc"}},
	} {
		for rest := data; ; rest = rest[1:] {
			at := bytes.Index(rest, []byte(c.magic))
			if at < 0 {
				break
			}
			rest = rest[at:]
			if elf := decompress(c.command, rest); elf != nil {
				return writeWhole(vmlinux, elf)
			}
		}
	}
	return errors.New("no compressed ELF file in it")
}

// decompress returns the ELF file at the start of data, or nil. What follows it
// in a bzImage makes the decompressor complain, so its status says nothing.
func decompress(command []string, data []byte) []byte {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, _ := cmd.Output()
	if !bytes.HasPrefix(out, []byte("\x7fELF")) {
		return nil
	}
	return out
}

// writeWhole lets other tests that run at the same time see all of the file or
// nothing.
func writeWhole(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
