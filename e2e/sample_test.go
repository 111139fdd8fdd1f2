package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// What opens the volumes of these tests.
const (
	passphrase = "correct horse battery"
	keyFile    = "key file\n"
	inside     = "the contents of the volume\n"
)

// sample is a LUKS2 volume with an ext4 file system, made without device-mapper by
// real cryptsetup and systemd-cryptenroll: keyslot 0 has the passphrase, 1 the key
// file, 2 a recovery key.
type sample struct {
	image    string // not to be changed
	uuid     string
	recovery string
}

// makeSample makes the volume once per test run.
func makeSample(t testing.TB) *sample {
	t.Helper()
	testenv.Need(t, "cryptsetup", "mke2fs", "systemd-cryptenroll", "busybox")
	image := artefact(t, "sample.img", writeSample)
	recovery, err := os.ReadFile(image + ".recovery")
	if err != nil {
		t.Fatal(err)
	}
	return &sample{image, strings.TrimSpace(testenv.Run(t, "cryptsetup", "luksUUID", image)), strings.TrimSpace(string(recovery))}
}

func writeSample(image string) error {
	dir := filepath.Dir(image)
	source, pass, key := filepath.Join(dir, "sample"), filepath.Join(dir, "pass"), filepath.Join(dir, "key")
	for path, content := range map[string]string{pass: passphrase, key: keyFile, image: ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	if err := writeRoot(source); err != nil {
		return err
	}
	if err := os.Truncate(image, 24<<20); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mke2fs", "-q", "-t", "ext4", "-d", source, image, "8M"},
		encryption(image, pass, "--reduce-device-size", "16M"),
		append([]string{"cryptsetup", "luksAddKey", "-q", "--key-file", pass, image, key}, cheap()...),
	} {
		if err := execute(nil, nil, args...); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	if err := execute([]string{"PASSWORD=" + passphrase}, &out, "systemd-cryptenroll", "--recovery-key", image); err != nil {
		return err
	}
	recovery := regexp.MustCompile(`[a-z]{8}(-[a-z]{8}){7}`).Find(out.Bytes())
	return os.WriteFile(image+".recovery", recovery, 0o600)
}

// encryption is the command that encrypts what is in a file. Without locks, because their
// folder belongs to root.
func encryption(image, pass string, geometry ...string) []string {
	args := append([]string{"cryptsetup", "reencrypt", "-q", "--disable-locks", "--encrypt", "--type", "luks2", "--key-file", pass, image}, cheap()...)
	return append(args, geometry...)
}

// cheap are the arguments that let a keyslot open in no time.
func cheap() []string { return []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"} }

// rootInit is the init of the system in the volume.
const rootInit = "#!/bin/busybox sh\n/bin/busybox cp /file /run/booted\nexec /bin/busybox sleep 100000\n"

// writeRoot makes the smallest system that can be booted.
func writeRoot(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, d := range []string{"bin", "sbin", "dev", "proc", "sys", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for path, content := range map[string][]byte{"file": []byte(inside), "bin/busybox": program, "sbin/init": []byte(rootInit)} {
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func execute(env []string, out io.Writer, args ...string) error {
	var errors bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, &errors
	if err := cmd.Run(); err != nil {
		return &commandError{strings.Join(args, " "), err, errors.Bytes()}
	}
	return nil
}

// copyOf is a copy of an image that a test may change.
func copyOf(t testing.TB, image string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(image))
	testenv.Run(t, "cp", "--sparse=always", image, path)
	return path
}

func writeTemp(t *testing.T, content string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// uuidNumber is one of the UUIDs of copies.
func uuidNumber(n int) string { return fmt.Sprintf("11111111-2222-3333-4444-%012d", n) }

// otherUUID gives a volume another UUID.
func otherUUID(t *testing.T, image string, n int) string {
	t.Helper()
	testenv.Run(t, "cryptsetup", "luksUUID", "-q", "--uuid", uuidNumber(n), image)
	return image
}
