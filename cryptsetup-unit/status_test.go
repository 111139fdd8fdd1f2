package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/internal/cli"
	"luksmith/luks2/dmcrypt"
)

// TestStatusForPeople has a volume that was opened after failures, and one that was
// not.
func TestStatusForPeople(t *testing.T) {
	t.Parallel()
	slot, token := 2, 1
	for _, tt := range []struct {
		status status
		want   string
	}{
		{status{Name: "home", Active: true, Map: &mapInfo{Node: "/dev/mapper/home", UUID: "CRYPT-LUKS2-0123-home", Source: "/dev/sda2", Cipher: "aes-xts-plain64", KeyBits: 512,
			Offset: 16 << 20, Size: 20 << 30, SectorSize: 4096, Flags: "allow_discards", Open: 1},
			Report: &report{Started: "2026-11-23T03:15:20Z", Result: "attached", Identity: "0f", Opened: &opened{By: "tpm2 token", Keyslot: &slot, Token: &token, Type: "tpm2", Label: "laptop"},
				Stages:   []stage{{"device", 3012}, {"header", 2}, {"unlock", 815}, {"map", 31}},
				Failures: []failureReport{{"key file /k", "no such file or directory", 1, 0}, {"fido2 token", "token 0: no\ntoken 3: no", 6, 30000}},
				Warnings: []string{"home: something"}}}, `
home is attached
  node       /dev/mapper/home
  device     /dev/sda2
  uuid       CRYPT-LUKS2-0123-home
  cipher     aes-xts-plain64, key of 512 bits in the kernel keyring
  size       20.0 GiB from byte 16777216 on, sectors of 4096 bytes
  access     read and write
  flags      allow_discards
  in use     yes
last run of attach: attached
  began      2026-11-23T03:15:20Z
  opened by  tpm2 token, keyslot 2 (tpm2, "laptop"), token 1
  identity   0f
  times      device 3.01s, header 2ms, unlock 815ms, map 31ms
  failed     key file /k, after 0s: no such file or directory
  failed     fido2 token, after 30s: token 0: no
             token 3: no
  warning    home: something
`},
		{status{Name: "img", Active: true, Map: &mapInfo{Node: "/dev/mapper/img", UUID: "CRYPT-LUKS1-0-img", Source: "/dev/loop0", Image: "/var/img", Cipher: "aes-xts-plain64", KeyBits: 256,
			Size: 100 << 10, SectorSize: 512, ReadOnly: true, KeyInTable: true, Open: 2, Doomed: true}}, `
img is attached
  node       /dev/mapper/img
  image      /var/img (/dev/loop0)
  uuid       CRYPT-LUKS1-0-img
  cipher     aes-xts-plain64, key of 256 bits in the table
  size       100.0 KiB from byte 0 on, sectors of 512 bytes
  access     read only
  in use     yes; detached when that ends
`},
		{status{Name: "asleep", Active: true, Map: &mapInfo{Node: "/dev/mapper/asleep", UUID: "CRYPT-LUKS2-0-asleep", Source: "/dev/sdb", Cipher: "aes-xts-plain64", KeyBits: 256, SectorSize: 512, Suspended: true}}, `
asleep is attached
  suspended  reads and writes wait until: cryptsetup luksResume asleep
  node       /dev/mapper/asleep
  device     /dev/sdb
  uuid       CRYPT-LUKS2-0-asleep
  cipher     aes-xts-plain64, key of 256 bits that the kernel may not have
  size       0.0 KiB from byte 0 on, sectors of 512 bytes
  access     read and write
  in use     no
`},
		{status{Name: "gone", Report: &report{Started: "2026-11-23T03:15:20Z", Result: "failed", Exit: 10, Error: "attaching gone: device UUID=1 did not appear within 1m30s"}}, `
last run of attach: failed, exit status 10
  began      2026-11-23T03:15:20Z
  error      attaching gone: device UUID=1 did not appear within 1m30s
`},
		{status{Name: "lost", Report: &report{Started: "2026-11-23T03:15:20Z", Result: "failed", Exit: 2, Error: "attaching lost: key file /k: no\npassphrase prompt: too many",
			Failures: []failureReport{{"key file /k", "no", 2, 5}, {"passphrase prompt", "too many", 2, 9999}}}}, `
last run of attach: failed, exit status 2
  began      2026-11-23T03:15:20Z
  failed     key file /k, after 5ms: no
  failed     passphrase prompt, after 10s: too many
`},
	} {
		if diff := cmp.Diff(tt.want, "\n"+strings.Join(tt.status.lines(), "\n")+"\n"); diff != "" {
			t.Errorf("%s:\n%s", tt.status.Name, diff)
		}
	}
}

// TestStatusOfAllVolumes lists crypttab in its order and then what else is mapped.
func TestStatusOfAllVolumes(t *testing.T) {
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	t.Setenv("SYSTEMD_CRYPTTAB", b.file(t, "etc/crypttab", "root UUID="+uuid3+"\nwork\\x20disk /dev/sdb\nlost /dev/sdc\n"))
	b.mappings = mappings{func() ([]string, error) { return []string{"asleep", "root"}, nil }, b.status}
	b.active["root"] = &dmcrypt.Info{Name: "root", Source: "/dev/sda2", KeyName: "k"}
	b.active["asleep"] = &dmcrypt.Info{Name: "asleep", Source: "/dev/loop0", Image: "/img", Suspended: true}
	slot := 2
	for _, r := range []*report{
		{Version: 1, Name: "root", Result: resultAttached, Opened: &opened{By: "tpm2 token", Keyslot: &slot}},
		{Version: 1, Name: "lost", Device: "/dev/sdc", Result: resultFailed, Exit: 2, Error: "attaching lost: key file /k: no\nmore"},
	} {
		if err := r.save(b.root); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.statusOfAll(cli.JSONOff); err != nil {
		t.Fatal(err)
	}
	want := `
root (/dev/sda2): attached by tpm2 token, keyslot 2
work disk (-): not attached
lost (/dev/sdc): not attached: key file /k: no
asleep (/img): suspended; reads and writes wait until: cryptsetup luksResume asleep
`
	if diff := cmp.Diff(want, "\n"+b.messages.String()); diff != "" {
		t.Error(diff)
	}
	b.messages.Reset()
	if err := b.statusOfAll(cli.JSONShort); err != nil {
		t.Fatal(err)
	}
	var doc struct{ Volumes []status }
	if err := json.Unmarshal([]byte(b.messages.String()), &doc); err != nil || len(doc.Volumes) != 4 || !doc.Volumes[3].Map.Suspended || doc.Volumes[2].Report.Exit != 2 {
		t.Errorf("%v: %s", err, b.messages)
	}
}

// TestSuspendedVolumeIsSaidToBe when it is attached again.
func TestSuspendedVolumeIsSaidToBe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := newVolume(t)
	b.active["vol"] = &dmcrypt.Info{Name: "vol", Source: v.Path, Type: "LUKS2", VolumeUUID: v.UUID, Suspended: true}
	r, err := b.run(t, "vol", v.Path)
	if err != nil || r.Result != resultActive || !strings.Contains(b.messages.String(), "vol: it is suspended: reads and writes wait until: cryptsetup luksResume vol") {
		t.Errorf("%v, %+v\n%s", err, r, b.messages)
	}
}

// TestReportFormat keeps the members that other programs read.
func TestReportFormat(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r, err := b.run(t, "vol", newImage(t), b.file(t, "k", "wrong"), "headless")
	if err == nil {
		t.Fatal("a wrong key opened the volume")
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]any{"version": 1.0, "name": "vol", "result": "failed", "exit": 2.0} {
		if got[member] != want {
			t.Errorf("%s: %v, want %v", member, got[member], want)
		}
	}
	for _, member := range []string{"source", "device", "uuid", "started", "error", "stages", "failures"} {
		if got[member] == nil || got[member] == "" {
			t.Errorf("%s is missing in %s", member, text)
		}
	}
	failure, _ := got["failures"].([]any)[0].(map[string]any)
	for _, member := range []string{"way", "error", "exit", "ms"} {
		if _, ok := failure[member]; !ok {
			t.Errorf("failures: %s is missing in %s", member, text)
		}
	}
}
