package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// crypttabs are files as distributions and their documentation write them, and what lint
// says of each: the findings, "" for none. The volumes are on other machines.
var crypttabs = map[string]struct{ text, want string }{
	"Debian's installer": {"vda5_crypt UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks,discard\n", ""},
	"Debian with comment": {"# <target name>\t<source device>\t\t<key file>\t<options>\n" +
		"sda3_crypt UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks,discard,x-initrd.attach\n", ""},
	"Debian, words of its scripts": {"r UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks,initramfs,tries=3,loud,noearly,checkargs=ext4\n", ""},
	"Debian, swap":                 {"sda6_crypt /dev/sda6 /dev/urandom cipher=aes-xts-plain64,size=256,swap,discard\n", ":1: warning: options: swap: attach-all does not open it; systemd or cryptsetup does"},
	"Fedora's anaconda":            {"luks-3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none discard\n", ""},
	"Fedora, dash":                 {"luks-3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b -\n", ""},
	"Fedora, TPM": {"luks-a UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none tpm2-device=auto,discard,x-initrd.attach\n" +
		"luks-b UUID=4f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none fido2-device=auto,nofail,x-systemd.device-timeout=10s\n" +
		"luks-c UUID=5f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none _netdev\n", ""},
	"Arch's own": {"# Configuration for encrypted block devices.\n# See crypttab(5) for details.\n\n# <name>       <device>   <password>   <options>\n" +
		"# home         UUID=b8ad5c18-f445-495d-9095-c9ec4f9d2f37    /etc/mypassword1\n", ""},
	"Arch's wiki": {"externaldrive         UUID=2f9a8428-ac69-478a-88a2-4aa458565431        none    luks,timeout=180\n" +
		"swap\tLABEL=cryptswap\t/dev/urandom\tswap,offset=2048,cipher=aes-xts-plain64,size=512,sector-size=4096\n", ":2: warning: options: swap: attach-all does not open it; systemd or cryptsetup does"},
	"openSUSE": {"cr_root  UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b  none  x-initrd.attach\n" +
		"cr-auto-1  /dev/disk/by-uuid/3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5d  none  none\n", ""},
	"Ubuntu's installer": {"dm_crypt-0 UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks\n", ""},
	"Ubuntu, keyctl": {"a UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b pool luks,discard,initramfs,keyscript=decrypt_keyctl\n",
		":1: warning: options: keyscript=decrypt_keyctl: a program named in crypttab is never run, so a passphrase will be asked for"},
	"passdev": {"a UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b /dev/disk/by-label/stick:/key luks,keyscript=/lib/cryptsetup/scripts/passdev\n",
		":1: warning: options: keyscript=/lib/cryptsetup/scripts/passdev: a program named in crypttab is never run, so a passphrase will be asked for"},
	"tags, key elsewhere": {"root PARTUUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks\nusb PARTLABEL=crypt none luks,noauto\n" +
		"l LABEL=data /keys/data.key:UUID=abcd-1234 luks,keyfile-timeout=10s\n", ""},
	"no line end":           {"home UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks", ""},
	"CRLF, tabs":            {"home\tUUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b\tnone\tluks\r\n", ""},
	"comment behind":        {"home UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks # disk\n", ":1: warning: line: ignoring \"#\" and what follows: a comment stands on a line of its own"},
	"mark before a line":    {"\ufeffhome UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks\n", ":1: error: line: the file begins with a byte order mark, which belongs to its first word: save it as UTF-8 without one"},
	"mark before nothing":   {"\ufeff\r\nhome UUID=3f2c1d4e-0f6b-4d0e-9c55-8f1b2f3d4a5b none luks\n", ":1: error: line: the file begins with a byte order mark, which belongs to its first word: save it as UTF-8 without one"},
	"mark before a comment": {"\ufeff# mine\n", ":1: error: line: the file begins with a byte order mark, which belongs to its first word: save it as UTF-8 without one"},
}

// TestFilesOfDistributions: a correct one says how many volumes there are and nothing
// else, another has one message for one cause.
func TestFilesOfDistributions(t *testing.T) {
	t.Parallel()
	for name, tt := range crypttabs {
		path := write(t, filepath.Join(t.TempDir(), "crypttab"), []byte(tt.text), 0o600)
		out, errOut, status := command(t, "cryptsetup-unit", "crypttab", "lint", path)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		findings := strings.Join(lines[:len(lines)-1], "\n")
		wanted := tt.want
		if wanted != "" {
			wanted = path + wanted
		}
		if findings != wanted || errOut != "" || (status == 1) != strings.Contains(tt.want, "error:") || (wanted == "") != strings.HasSuffix(out, " no mistakes\n") {
			t.Errorf("%s: status %d\n%s%s", name, status, out, errOut)
		}
	}
}
