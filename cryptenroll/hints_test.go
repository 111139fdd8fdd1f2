package main

import (
	"os"
	"path/filepath"
	"testing"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

func TestInitrdCommand(t *testing.T) {
	for file, want := range map[string]string{
		"usr/sbin/update-initramfs":         "update-initramfs -u -k all",
		"etc/mkinitcpio.conf":               "mkinitcpio -P",
		"usr/bin/dracut":                    "dracut --regenerate-all --force",
		"etc/mkinitfs/mkinitfs.conf":        "mkinitfs",
		"usr/lib/booster/regenerate_images": "/usr/lib/booster/regenerate_images",
		"etc/NIXOS":                         "nixos-rebuild boot",
		"etc/other":                         "",
	} {
		root := t.TempDir()
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := initrdCommand(root); got != want {
			t.Errorf("with %s: %q, want %q", file, got, want)
		}
	}
}

// TestCrypttabLine: a UUID that is none comes from a crafted header and would add
// fields to the line; udev knows no UUID of a volume with a detached header.
func TestCrypttabLine(t *testing.T) {
	const uuid = "45bb0961-a374-4533-8da0-0810298a8eb4"
	for _, c := range []struct{ uuid, header, keyFile, want string }{
		{uuid, "", "", "luks-" + uuid + " UUID=" + uuid + " none tpm2-device=auto,x-initrd.attach"},
		{"x /evil keyscript=/evil", "", "", "luks /image none tpm2-device=auto,x-initrd.attach"},
		{uuid, "/head", "", "luks-" + uuid + " /image none tpm2-device=auto,x-initrd.attach,header=/head"},
		{uuid, "", "/etc/the salt", "luks-" + uuid + " UUID=" + uuid + ` /etc/the\x20salt tpm2-device=auto,x-initrd.attach`},
	} {
		r := &reporter{header: c.header, root: t.TempDir(), types: all.New()}
		p := &plan{volume: &volume{path: "/image", header: &luks2.Header{UUID: c.uuid}}}
		if got, _ := r.crypttabLine(p, &tokens.Enrollment{Crypttab: []string{"tpm2-device=auto", "x-initrd.attach"}, KeyFile: c.keyFile}); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := mappingName([]string{"cr", "cr2"}, uuid); got != "cr" {
		t.Errorf("active mapping: %q", got)
	}
}

// TestSetCommand: what is suggested has to survive a shell.
func TestSetCommand(t *testing.T) {
	p := &plan{volume: &volume{path: "/dev/sda 2", header: &luks2.Header{}}}
	e := &tokens.Enrollment{Crypttab: []string{"pkcs11-uri=pkcs11:token=a;object=b"}, KeyFile: "/etc/salt"}
	const want = `cryptsetup-unit crypttab set --key-file=/etc/salt '/dev/sda 2' 'pkcs11-uri=pkcs11:token=a;object=b'`
	if got := (&reporter{}).setCommand(p, e); got != want {
		t.Errorf("got %s", got)
	}
}
