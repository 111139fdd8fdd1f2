// Package testenv finds what tests need from the machine: programs, a tree with a
// newer systemd, scratch copies of compressed volumes.
//
// A test that cannot run here says why, in one of two ways. "missing" is something
// that can be installed (.ci/install-deps does); with REQUIRE_ALL=1, which CI sets,
// it is a failure. "not applicable here" is a property of the machine that nobody
// can install, and stays a skip.
package testenv

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Missing skips the test because something installable is absent, or fails it
// when REQUIRE_ALL is set.
func Missing(t testing.TB, what, how string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") != "" {
		t.Fatalf("missing: %s (%s); REQUIRE_ALL is set", what, how)
	}
	t.Skipf("missing: %s (%s)", what, how)
}

// NotApplicable skips the test because of a property of this machine.
func NotApplicable(t testing.TB, reason string) {
	t.Helper()
	t.Skipf("not applicable here: %s", reason)
}

// Need skips or fails the test unless all programs are installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	findRootsPrograms()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Missing(t, p, "sh .ci/install-deps installs it")
		}
	}
}

// findRootsPrograms adds the folders of cryptsetup and sfdisk to PATH, where Debian has
// them for root alone.
var findRootsPrograms = sync.OnceFunc(func() {
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
})

// NeedRoot skips the test for other users, who lack what it does.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		NotApplicable(t, "needs root")
	}
}

// NeedGuest skips tests that load kernel modules, map devices or mount: they run in
// the guest that e2e boots (e2e.VM.RunGoTests), never on the machine itself.
func NeedGuest(t testing.TB) {
	t.Helper()
	if os.Getenv("LUKSMITH_GUEST") == "" {
		NotApplicable(t, "runs in the guest of e2e")
	}
}

// NeedEndToEnd skips tests that take minutes and the network: `make e2e` runs them.
func NeedEndToEnd(t testing.TB) {
	t.Helper()
	if !EndToEnd() {
		NotApplicable(t, "runs by make e2e")
	}
}

// EndToEnd reports whether `make e2e` runs: tables of which make test takes a part are
// then gone through in full.
func EndToEnd() bool { return os.Getenv("LUKSMITH_E2E") != "" }

// Run executes a program and returns its standard output; a failure ends the test
// with both outputs. The test needs the program, see [Need].
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	Need(t, name)
	cmd := exec.Command(name, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errOut.String())
	}
	return out.String()
}

// Image unpacks a zstd-compressed volume into a sparse file of the test's own
// temporary folder and returns its path.
func Image(t testing.TB, compressed string) string {
	t.Helper()
	in, err := os.Open(compressed)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	path := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(compressed), ".zst"))
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := copySparse(out, z); err != nil {
		t.Fatalf("unpacking %s: %v", compressed, err)
	}
	return path
}

// Archive unpacks a zstd-compressed tar of volumes, sparse, into the test's own
// temporary folder and returns it.
func Archive(t testing.TB, compressed string) string {
	t.Helper()
	in, err := os.Open(compressed)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(1<<27))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err == nil {
			err = unpackFile(filepath.Join(dir, filepath.FromSlash(h.Name)), h, r)
		}
		if err != nil {
			t.Fatalf("unpacking %s: %v", compressed, err)
		}
	}
}

func unpackFile(path string, h *tar.Header, content io.Reader) error {
	if !h.FileInfo().Mode().IsRegular() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	return copySparse(out, content)
}

// copySparse leaves holes where the input has whole zero blocks.
func copySparse(out *os.File, in io.Reader) error {
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	var size int64
	for {
		n, err := io.ReadFull(in, block)
		if !bytes.Equal(block[:n], zeros[:n]) {
			if _, werr := out.WriteAt(block[:n], size); werr != nil {
				return werr
			}
		}
		size += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}
