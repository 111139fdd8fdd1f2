package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/dmcrypt"
)

func TestKeySlotRestricts(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	for slot, want := range map[int]int{0: cli.ExitNoKey, 1: cli.ExitOK, 5: cli.ExitFailure} {
		b := newBench(t)
		_, err := b.run(t, "vol", image, b.file(t, "k", rightKey), fmt.Sprintf("headless,key-slot=%d", slot))
		if got := cli.ExitStatus(err); got != want {
			t.Errorf("key-slot=%d: %v", slot, err)
		}
	}
}

func TestFixatedVolumeKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := newVolume(t)
	image := v.Path
	volumeKey, err := hex.DecodeString(v.VolumeKey)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, volumeKey)
	fmt.Fprintf(mac, `cryptsetup:vol\x3aa:%s`, v.UUID) // the colon of the name is escaped
	want := hex.EncodeToString(mac.Sum(nil))
	key := b.file(t, "k", rightKey)
	r, err := b.run(t, "vol:a", image, key, "headless,fixate-volume-key="+want)
	if err != nil || r.Identity != want {
		t.Errorf("%v; identity %s, want %s", err, r.Identity, want)
	}
	b.mapped = nil
	r, err = b.run(t, "vol", image, key, "tpm2-measure-pcr=yes,fixate-volume-key="+want)
	if cli.ExitStatus(err) != cli.ExitRefused || len(b.mapped) != 0 || len(b.measured) != 0 {
		t.Errorf("another name: %v, %v, %v", err, b.mapped, b.measured)
	}
	if r.Result != "failed" {
		t.Errorf("report: %+v", r)
	}
}

func TestAlreadyActive(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := newVolume(t)
	image, uuid := v.Path, v.UUID
	other := write(t, filepath.Join(t.TempDir(), "other"), []byte("x"), 0o600)
	for name, tt := range map[string]struct {
		info *dmcrypt.Info
		want int
	}{
		"this volume":             {&dmcrypt.Info{Type: "LUKS2", VolumeUUID: uuid, Source: "/dev/loop9", Image: image}, cli.ExitOK},
		"another volume":          {&dmcrypt.Info{Type: "LUKS2", VolumeUUID: uuid3, Source: image}, cli.ExitBusy},
		"same uuid, other device": {&dmcrypt.Info{Type: "LUKS2", VolumeUUID: uuid, Source: other}, cli.ExitBusy},
		"plain mapping":           {&dmcrypt.Info{Type: "PLAIN", Source: image}, cli.ExitBusy},
	} {
		b.active["vol"] = tt.info
		r, err := b.run(t, "vol", image, "-", "headless")
		if cli.ExitStatus(err) != tt.want || len(b.mapped) != 0 {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
		if tt.want == 0 && r.Result != "already active" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestWrongDevicesAreRefusedBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, device := range map[string]string{"no LUKS": write(t, filepath.Join(t.TempDir(), "zero"), make([]byte, 1<<20), 0o600), "folder": t.TempDir()} {
		if _, err := b.run(t, "vol", device, "-", ""); cli.ExitStatus(err) != cli.ExitWrongDevice {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.run(t, "vol", "/dev/disk/by-uuid/"+uuid3, "-", "x-systemd.device-timeout=50ms"); cli.ExitStatus(err) != cli.ExitTimedOut || !strings.Contains(err.Error(), uuid3) {
		t.Errorf("absent device: %v", err)
	}
}

func TestPartsOfLargerDevicesAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	mirror, pv := newImage(t), write(t, filepath.Join(t.TempDir(), "pv"), make([]byte, 1<<20), 0o600)
	change(t, pv, 512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001")
	info, err := os.Stat(mirror)
	if err != nil {
		t.Fatal(err)
	}
	change(t, mirror, info.Size()&^0xffff-0x10000, "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a\x00\x00\x00") // superblock 0.90
	for _, tt := range []struct{ device, options, want string }{
		{mirror, "headless", "member of the RAID"},
		{pv, "headless", "physical volume of LVM"},
		{mirror, "headless,read-only", ""},
	} {
		_, err := b.run(t, "vol", tt.device, b.file(t, "k", rightKey), tt.options)
		if tt.want == "" && err != nil || tt.want != "" && (cli.ExitStatus(err) != cli.ExitWrongDevice || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.options, err)
		}
	}
}

func change(t *testing.T, path string, offset int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), offset); err != nil {
		t.Fatal(err)
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"slash":        {[]string{"a/b", "/dev/x"}, "name: invalid value"},
		"quote":        {[]string{"a'b", "/dev/x"}, "name: invalid value"},
		"control":      {[]string{"a\x1b", "/dev/x"}, "name: invalid value"},
		"long":         {[]string{strings.Repeat("n", 84), "/dev/x"}, "84 bytes"},
		"relative":     {[]string{"a", "sda1"}, `"sda1" is neither absolute nor a tag`},
		"restriction":  {[]string{"a", "/dev/x", "-", "headless=perhaps"}, "headless=perhaps"},
		"fatal option": {[]string{"a", "/dev/x", "-", "header=rel"}, "header=rel"},
	} {
		e, err := entryOfArguments(tt.args)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = newJob(e, newGrammar())
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestTokenOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked := b.agent(t, "+"+rightPassphrase)
	_, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), "luksmith-token-only,tpm2-device=auto")
	if cli.ExitStatus(err) != cli.ExitRefused || len(asked()) != 0 || len(b.mapped) != 0 {
		t.Errorf("%v, asked %v", err, asked())
	}
}

// TestMappingThatIsThereIsComparedWithItsReport: the initrd attached the volume, and the
// unit of the real root comes to it again.
func TestMappingThatIsThereIsComparedWithItsReport(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	for name, tt := range map[string]struct {
		first, options string // of the run before, "" for another program; and of this one
		want           int
		warning        string
	}{
		"again":                      {"headless", "headless", cli.ExitOK, ""},
		"fixated":                    {"headless", "fixate-volume-key=RIGHT", cli.ExitOK, ""},
		"exchanged":                  {"headless", "fixate-volume-key=" + strings.Repeat("0", 64), cli.ExitRefused, ""},
		"another program":            {"", "headless", cli.ExitOK, ""},
		"another program, fixated":   {"", "fixate-volume-key=" + strings.Repeat("0", 64), cli.ExitOK, "cannot be checked"},
		"another program, measured":  {"", "tpm2-measure-pcr=yes", cli.ExitOK, "cannot be measured"},
		"for writing, not read-only": {"headless", "read-only", cli.ExitOK, "attached for writing"},
	} {
		b := newBench(t)
		key := b.file(t, "k", rightKey)
		first := &report{}
		if tt.first != "" {
			var err error
			if first, err = b.run(t, "vol", v.Path, key, tt.first); err != nil {
				t.Fatal(err)
			}
		}
		b.active["vol"] = &dmcrypt.Info{Type: "LUKS2", VolumeUUID: v.UUID, Source: "/dev/loop9", Image: v.Path}
		r, err := b.run(t, "vol", v.Path, key, strings.Replace(tt.options, "RIGHT", first.Identity, 1))
		if cli.ExitStatus(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
		if tt.want == cli.ExitOK && tt.first != "" && (r.Opened == nil || r.Identity != first.Identity) {
			t.Errorf("%s: how the volume was opened is forgotten: %+v", name, r)
		}
		if tt.warning == "" && strings.Contains(b.messages.String(), "warning") || !strings.Contains(b.messages.String(), tt.warning) {
			t.Errorf("%s: messages %q, want %q", name, b.messages, tt.warning)
		}
	}
}

// patchHeader changes the JSON of both header copies and makes their checksums fit
// (LUKS2 specification 1.1.3 §2.1).
func patchHeader(t *testing.T, image, old, changed string) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size, binary, sum, sumSize = 16 << 10, 4096, 448, 64
	for _, at := range []int64{0, size} {
		b := make([]byte, size)
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		text, _, _ := bytes.Cut(b[binary:], []byte{0})
		patched := bytes.Replace(text, []byte(old), []byte(changed), 1)
		if bytes.Equal(text, patched) {
			t.Fatalf("the header has no %s: %s", old, text)
		}
		clear(b[binary:])
		copy(b[binary:], patched)
		clear(b[sum : sum+sumSize])
		digest := sha256.Sum256(b)
		copy(b[sum:], digest[:])
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRequirementsAreCheckedBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, changed, want string }{
		"unknown requirement": {`"config":{`, `"config":{"requirements":{"mandatory":["future-thing"]},`, `volume requires "future-thing"`},
		"re-encryption":       {`"config":{`, `"config":{"requirements":{"mandatory":["offline-reencrypt"]},`, "re-encrypted"},
		"integrity":           {`"encryption":"aes-xts-plain64","sector_size"`, `"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"},"encryption":"aes-xts-plain64","sector_size"`, "authenticated encryption"},
	} {
		b := newBench(t)
		image := newImage(t)
		patchHeader(t, image, tt.old, tt.changed)
		asked := b.agent(t, "-")
		_, err := b.run(t, "vol", image, b.file(t, "k", rightKey), "luks")
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(asked()) != 0 || len(b.mapped) != 0 {
			t.Errorf("%s: %v, asked %v", name, err, asked())
		}
		if !strings.Contains(err.Error(), "cryptsetup open --key-file ") {
			t.Errorf("%s: no command in %v", name, err)
		}
	}
}

// TestUnboundKeyslotOpensNothing: a token may name a keyslot of another key.
func TestUnboundKeyslotOpensNothing(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := newVolumeWithToken(t, "systemd-tpm2")
	dir := t.TempDir()
	first, other := write(t, filepath.Join(dir, "first"), []byte(rightPassphrase), 0o600), write(t, filepath.Join(dir, "other"), []byte("unbound"), 0o600)
	testenv.Run(t, "cryptsetup", "luksAddKey", "-q", "--unbound", "--key-size", "512", "--key-slot", "5", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", first, v.Path, other)
	b := newBench(t)
	_, err := b.run(t, "vol", v.Path, b.file(t, "k", "unbound"), "headless")
	if cli.ExitStatus(err) != cli.ExitNoKey || len(b.mapped) != 0 {
		t.Errorf("key file: %v", err)
	}
	_, err = b.run(t, "vol", v.Path, b.file(t, "k", "unbound"), "headless,key-slot=5")
	if err == nil || len(b.mapped) != 0 {
		t.Errorf("key-slot=5: %v", err)
	}
}
