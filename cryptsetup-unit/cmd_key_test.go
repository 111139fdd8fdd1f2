package main

import (
	"path/filepath"
	"strings"
	"testing"

	"luksmith/crypttab"
	"luksmith/tokens"
)

// lineOf is the entry of one line of crypttab.
func (b *bench) lineOf(t *testing.T, line string) crypttab.Entry {
	t.Helper()
	f, err := crypttab.Parse(strings.NewReader(line), "crypttab")
	if err != nil || len(f.Entries) != 1 {
		t.Fatal(err)
	}
	return f.Entries[0]
}

// TestKeyPrintsWhatOpensTheVolume: bytes as they are, for cryptsetup's --key-file=-.
func TestKeyPrintsWhatOpensTheVolume(t *testing.T) {
	image := newImage(t)
	for name, tt := range map[string]struct{ key, typed, want string }{
		"key file":            {rightKey, "", rightKey},
		"wrong key, a person": {"wrong", rightPassphrase, rightPassphrase},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if tt.typed != "" {
				b.agent(t, "+"+tt.typed)
			}
			j, err := b.newJob(b.lineOf(t, "a "+image+" "+b.file(t, "k", tt.key)+" password-cache=no"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := b.findKey(b.ctx, j)
			if err != nil {
				t.Fatal(err)
			}
			defer key.Wipe()
			if string(key.Bytes()) != tt.want || len(b.names()) != 0 {
				t.Errorf("%q, mapped %v", key.Bytes(), b.names())
			}
		})
	}
}

func TestKeyOfAToken(t *testing.T) {
	b := newBench(t)
	b.newHandlers = stub(&plug{script: []func(*tokens.UnlockRequest) error{opens}, passphrase: rightKey})
	j, err := b.newJob(b.lineOf(t, "a "+imageWithToken(t, "systemd-tpm2")+" none tpm2-device=auto"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := b.findKey(b.ctx, j)
	if err != nil || string(key.Bytes()) != rightKey {
		t.Errorf("%v", err)
	}
	key.Wipe()
}

// TestKeyOfWhat: Debian's scripts say it in the environment, Alpine's kernel line does.
func TestKeyOfWhat(t *testing.T) {
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet cryptroot=UUID="+uuid3+" cryptdm=sys")
	if e, err := b.keyEntry(nil); err != nil || e.Name != "sys" || e.Source.String() != "UUID="+uuid3 {
		t.Errorf("%+v, %v", e, err)
	}
	t.Setenv("CRYPTTAB_NAME", "data")
	t.Setenv("CRYPTTAB_SOURCE", "/dev/sdb")
	if e, err := b.keyEntry(nil); err != nil || e.Name != "data" || e.Source.String() != "/dev/sdb" {
		t.Errorf("%+v, %v", e, err)
	}
	t.Setenv("CRYPTTAB_NAME", "")
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	if _, err := b.keyEntry(nil); err == nil {
		t.Error("no volume")
	}
}

// TestKeyCommand is a key program as Debian runs it, and stays off the terminal.
func TestKeyCommand(t *testing.T) {
	image, key := newImage(t), filepath.Join(t.TempDir(), "k")
	write(t, key, []byte(rightKey), 0o600)
	out, errOut, status := command(t, "cryptsetup-unit", "key", "v", image, key, "headless")
	if out != rightKey || status != 0 {
		t.Errorf("status %d: %q %s", status, out, errOut)
	}
	t.Setenv("CRYPTTAB_NAME", "v")
	t.Setenv("CRYPTTAB_SOURCE", "/nothing")
	if out, errOut, status := command(t, "key", "none"); status != 4 || out != "" || !strings.Contains(errOut, "/nothing") {
		t.Errorf("status %d: %q %s", status, out, errOut)
	}
}

func TestInitrdNeeds(t *testing.T) {
	image := imageWithToken(t, "systemd-fido2")
	key := filepath.Join(t.TempDir(), "k")
	write(t, key, []byte(rightKey), 0o600)
	for name, tt := range map[string]struct{ line, want, not string }{
		"of the header":     {"v " + image + " " + key, "module dm_crypt\nmodule crypto-aes\nmodule crypto-xts\nmodule usbhid\nmodule hid_generic\nhelper luksmith-fido2\nfile " + key + "\n", "tpm"},
		"of an option":      {"v " + newImage(t) + " none tpm2-device=auto", "modules drivers/char/tpm\n", "helper"},
		"device not there":  {"v /dev/nothing none", "helper luksmith-pkcs11\nmissing v: the header cannot be read now", "\nfile "},
		"nobody else":       {`a\040b UUID=5AFE0000-0000-4000-8000-00000000c0de none luksmith-token-only`, `alone /dev/disk/by-uuid/5afe0000-0000-4000-8000-00000000c0de a\x20b`, "\nfile "},
		"no volume of ours": {"v /dev/nothing none swap", "modules drivers/char/tpm\n", "missing"},
	} {
		path := filepath.Join(t.TempDir(), "crypttab")
		write(t, path, []byte(tt.line+"\n"), 0o600)
		out, errOut, status := command(t, "cryptsetup-unit", "initrd", "needs", "--crypttab="+path)
		if status != 0 || !strings.Contains(out, tt.want) || strings.Contains(out, tt.not) {
			t.Errorf("%s: status %d\n%s%s", name, status, out, errOut)
		}
	}
}
