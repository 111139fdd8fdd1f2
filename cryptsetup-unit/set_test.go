package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func uuidOf(t *testing.T, image string) string {
	t.Helper()
	uuid, err := volumeUUID(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return uuid
}

// TestSetFindsTheLineByAnyNameOfTheDevice: a second line for a volume ends its boot.
func TestSetFindsTheLineByAnyNameOfTheDevice(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	uuid := uuidOf(t, image)
	for _, name := range []string{image, link, "UUID=" + uuid, "UUID=" + strings.ToUpper(uuid), "/dev/disk/by-uuid/" + uuid} {
		path := write(t, filepath.Join(t.TempDir(), "crypttab"), []byte("# mine\r\nroot\t"+name+" none  luks\n\nz /dev/z\n"), 0o600)
		out, errOut, status := command(t, "cryptsetup-unit", "crypttab", "set", "--file="+path, image, "tpm2-device=auto,discard", "nofail")
		text, err := os.ReadFile(path)
		if want := "# mine\r\nroot\t" + name + " none  luks,tpm2-device=auto,discard,nofail\n\nz /dev/z\n"; status != 0 || err != nil || string(text) != want {
			t.Errorf("%s: status %d, %s%s\n%q\nwant %q", name, status, out, errOut, text, want)
		}
	}
}

func TestSetAddsALineAndLintTakesIt(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	path := filepath.Join(t.TempDir(), "crypttab")
	out, errOut, status := command(t, "cryptsetup-unit", "crypttab", "set", "--dry-run", "--json=short", "--file="+path, image, "discard")
	var done struct {
		Line     int
		Old, New string
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || status != 0 || done.Line != 1 || done.New != "luks-"+uuidOf(t, image)+" UUID="+uuidOf(t, image)+" none discard" {
		t.Errorf("%d, %v, %s%s", status, err, out, errOut)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a dry run wrote the file")
	}
	if _, errOut, status := command(t, "cryptsetup-unit", "crypttab", "set", "--file="+path, "--name=my disk", image, "discrad"); status != 1 || !strings.Contains(errOut, `did you mean "discard"`) {
		t.Errorf("%d, %s", status, errOut)
	}
	if _, errOut, status := command(t, "cryptsetup-unit", "crypttab", "set", "--file="+path, "--name=my disk", image, "discard"); status != 0 {
		t.Errorf("%d, %s", status, errOut)
	}
	if out, errOut, status := command(t, "cryptsetup-unit", "crypttab", "lint", path); status != 0 || out != path+": 1 volume, no mistakes\n" || errOut != "" {
		t.Errorf("%d, %q, %q", status, out, errOut)
	}
}

func TestLintLooksAtDevices(t *testing.T) {
	t.Parallel()
	image, dir := newImage(t), t.TempDir()
	random := write(t, filepath.Join(dir, "random.bin"), make([]byte, 1<<20), 0o600)
	path := write(t, filepath.Join(dir, "crypttab"), []byte("a "+image+"\nb "+random+"\nc "+image+" - header=/gone\nd "+image+" - tpm2=auto\n"), 0o600)
	write(t, path+".initramfs", []byte("root UUID=\n"), 0o600)
	t.Run("named", func(t *testing.T) {
		out, _, status := command(t, "cryptsetup-unit", "crypttab", "lint", path)
		for _, want := range []string{":2: error: device: nothing to attach: ", random + ": not a LUKS2 volume", ":3: error: device: ", `:4: error: options: tpm2=auto: unknown option, did you mean "tpm2-device=auto"?`, "4 volumes, 4 errors"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if status != 1 || strings.Contains(out, "UUID=") {
			t.Errorf("status %d:\n%s", status, out)
		}
	})
	t.Run("json", func(t *testing.T) {
		out, _, status := command(t, "cryptsetup-unit", "crypttab", "lint", "--json=short", path)
		var doc struct{ Files []lintedFile }
		if err := json.Unmarshal([]byte(out), &doc); err != nil || status != 1 || len(doc.Files) != 1 || doc.Files[0].Volumes != 4 || doc.Files[0].Errors != 4 || doc.Files[0].Findings[0].Line != 2 {
			t.Errorf("%d, %v: %s", status, err, out)
		}
	})
	t.Run("both", func(t *testing.T) {
		list := (&app{root: dir}).lintPaths(nil)
		if len(list) != 1 { // below dir there is no /etc
			t.Errorf("%q", list)
		}
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "etc/crypttab"), nil, 0o600)
		write(t, filepath.Join(dir, "etc/crypttab.initramfs"), nil, 0o600)
		if list := (&app{root: dir}).lintPaths(nil); len(list) != 2 {
			t.Errorf("%q", list)
		}
	})
}
