package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// pack makes the volumes from the tree.
func (d *distro) pack(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	d.dir = dir
	d.packed, d.sealed, d.moved = filepath.Join(dir, "disk"), filepath.Join(dir, "sealed"), filepath.Join(dir, "moved")
	content := filepath.Join(d.tree, distroContent)
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	const copyTree = `tar -C "$0" -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' --exclude='./run/*' --exclude='./tmp/*' --exclude='./boot/*' \
		--exclude='./var/lib/apt/lists/*' --exclude='./var/cache/*' --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' . | tar -C "$1" -x`
	testenv.Run(t, "sh", "-c", copyTree, d.tree, content)
	testenv.Run(t, "truncate", "-s", distroSize, d.packed)
	testenv.Run(t, "mke2fs", "-q", "-t", "ext4", "-d", content, "-F", d.packed)
	testenv.Run(t, "cp", "--sparse=always", d.packed, d.plain())
	encryptDistro(t, d.packed, distroUUID)
	for image, pcr := range map[string]string{d.sealed: SeaBIOSPCR7, d.moved: pcrMoved} {
		testenv.Run(t, "cp", "--sparse=always", d.packed, image)
		d.enroll(t, image, pcr)
	}
}

// distroContent is the folder of the tree with the files of the root file system, and
// distroSize the size of that.
const (
	distroContent = "tmp/content"
	distroSize    = "480M"
)

// plain is the root file system before it was encrypted.
func (d *distro) plain() string { return filepath.Join(d.dir, "plain") }

// pcrMoved is a value that PCR 7 never has.
var pcrMoved = strings.Repeat("0", 63) + "1"

// encryptDistro turns a file system into a volume with a passphrase and a key file,
// without device-mapper.
func encryptDistro(t *testing.T, image, uuid string) {
	t.Helper()
	pass, key := image+".pass", image+".key"
	for path, text := range map[string]string{pass: passphrase, key: keyFile} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "truncate", "-s", "+32M", image)
	encrypt := encryption(image, pass, "--uuid", uuid, "--reduce-device-size", "32M")
	testenv.Run(t, encrypt[0], encrypt[1:]...)
	testenv.Run(t, "cryptsetup", append([]string{"luksAddKey", "-q", "--key-file", pass, image, key}, cheap()...)...)
}

// enroll gives a volume a keyslot for the machine's TPM, whose state is made by the
// first call.
func (d *distro) enroll(t *testing.T, image, pcr7 string) {
	t.Helper()
	tpm := testenv.StartTPM(t, testenv.TPMOptions{State: d.tpm})
	cmd := exec.Command("../build/cryptenroll", "--unlock-key-file="+d.packed+".pass", "--tpm2-device="+tpm.Device(), "--tpm2-pcrs=7:sha256="+pcr7, "--compat=257", image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	tpm.Shutdown()
	tpm.Stop()
	if d.tpm == "" {
		d.tpm = filepath.Join(d.dir, "tpm")
		testenv.Run(t, "cp", "-a", tpm.StateDir(), d.tpm)
	}
}

// overlay adds files to an image: the kernel unpacks several archives one after the
// other, and what comes later takes the place of what came before.
func overlay(t *testing.T, image string, change func(*archive)) string {
	t.Helper()
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	a := newArchive()
	change(a)
	changed := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(changed, append(data, a.bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return changed
}
