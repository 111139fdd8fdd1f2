package recovery

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// volumeWithOurKey is a volume whose slot 1 has a key and token of the handler,
// put there by cryptsetup. keyFile holds the key.
func volumeWithOurKey(t *testing.T, dir string) (image, keyFile string) {
	t.Helper()
	testenv.Need(t, "cryptsetup")
	e, err := enroll(t, &Handler{})
	if err != nil {
		t.Fatal(err)
	}
	image, keyFile = filepath.Join(dir, "v.img"), filepath.Join(dir, "key")
	first, token := filepath.Join(dir, "first"), filepath.Join(dir, "token.json")
	for path, content := range map[string]string{
		image: "", first: "hunter2", keyFile: secret.UnsafeString(e.Passphrase),
		token: strings.Replace(string(e.Token), `"keyslots":[]`, `"keyslots":["1"]`, 1),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(image, 20<<20); err != nil {
		t.Fatal(err)
	}
	cheap := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	testenv.Run(t, "cryptsetup", append([]string{"luksFormat", "-q", "--type", "luks2", image, first}, cheap...)...)
	testenv.Run(t, "cryptsetup", append([]string{"luksAddKey", "--key-file", first, image, keyFile}, cheap...)...)
	testenv.Run(t, "cryptsetup", "token", "import", "--json-file", token, image)
	return image, keyFile
}

// checkPeer has systemd-cryptenroll list the volume and unlock it by our key.
func checkPeer(t *testing.T, image, keyFile string, command func(args ...string) *exec.Cmd) {
	t.Helper()
	out, err := command(image).CombinedOutput()
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), "1 recovery") {
		t.Errorf("systemd lists, %v:\n%s", err, out)
	}
	if out, err := command("--unlock-key-file="+keyFile, "--recovery-key", image).CombinedOutput(); err != nil {
		t.Errorf("systemd does not unlock by our key: %v\n%s", err, out)
	}
}

func TestSystemd252TakesOurKey(t *testing.T) {
	testenv.Need(t, "systemd-cryptenroll")
	image, keyFile := volumeWithOurKey(t, t.TempDir())
	checkPeer(t, image, keyFile, func(args ...string) *exec.Cmd { return exec.Command("systemd-cryptenroll", args...) })
}

func TestSystemd257TakesOurKey(t *testing.T) {
	tree := testenv.Systemd257(t)
	image, keyFile := volumeWithOurKey(t, tree.Dir())
	checkPeer(t, tree.Inside(image), tree.Inside(keyFile), func(args ...string) *exec.Cmd {
		return tree.Command(nil, "systemd-cryptenroll", args...)
	})
}
