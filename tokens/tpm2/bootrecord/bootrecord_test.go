package bootrecord

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const bootID = "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a01"

func one[T any](v T) *T { return &v }

func full() *Boot {
	value := Digest(bytes.Repeat([]byte{7}, 32))
	at := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	return &Boot{Version: Version, ID: bootID, Time: at, Kernel: "6.12.9-amd64",
		Unlocks: []Unlock{{Time: at, Volume: "5a5e-uuid", Name: "root", Bank: "sha256", PCRs: PCRs{4: value, 7: value},
			Opened: &Way{By: "tpm2", Keyslot: one(2), Token: one(1), Label: "Debian 6.12.9", Policy: value},
			Failed: []Failure{{Way: Way{By: "tpm2", Token: one(0)}, Error: "PCR 4 differs", Exit: 7, Differ: []int{4}}}}},
		Chain: &Chain{Explained: at, Entry: Entry{ID: "debian", Title: "Debian", Path: "/EFI/Linux/debian.efi"},
			Parts:  []Part{{Role: "loader", Path: "/EFI/BOOT/BOOTX64.EFI", Kind: "systemd-boot", Version: "257", Digest: value, Signers: []Signer{{"30", "1"}}}},
			PCRs:   map[int]Explained{4: {Value: value, Words: []string{"os-separator"}}, 9: {Value: value, Reason: "unknown"}},
			Events: map[int][]string{9: {"initrd"}}, Config: []byte("set x=1")}}
}

func TestRecordComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	f := Folder(filepath.Join(t.TempDir(), "a", "boots"))
	if _, err := f.Read(bootID); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no record: %v", err)
	}
	if err := f.Write(full()); err != nil {
		t.Fatal(err)
	}
	got, err := f.Read(bootID)
	if err != nil || !reflect.DeepEqual(got, full()) {
		t.Fatalf("%+v, %v", got, err)
	}
	info, err := os.Stat(f.path(bootID))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	folder, _ := os.Stat(string(f))
	if folder.Mode().Perm() != 0o700 {
		t.Errorf("folder %v", folder.Mode())
	}
	if names, _ := os.ReadDir(string(f)); len(names) != 1 {
		t.Errorf("left over: %v", names)
	}
}

// hostile are changes that make a record unusable.
var hostile = map[string]func(*Boot){
	"version 0":           func(b *Boot) { b.Version = 0 },
	"another boot":        func(b *Boot) { b.ID = "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a02" },
	"identity with path":  func(b *Boot) { b.ID = "../../../../../../../../../etc/passwd" },
	"PCR -1":              func(b *Boot) { b.Unlocks[0].PCRs[-1] = b.Unlocks[0].PCRs[4] },
	"PCR 24":              func(b *Boot) { b.Unlocks[0].PCRs[24] = b.Unlocks[0].PCRs[4] },
	"short value":         func(b *Boot) { b.Unlocks[0].PCRs[4] = Digest{1} },
	"no value":            func(b *Boot) { b.Unlocks[0].PCRs[4] = nil },
	"unknown bank":        func(b *Boot) { b.Unlocks[0].Bank = "md5" },
	"no bank":             func(b *Boot) { b.Unlocks[0].Bank = "" },
	"many unlocks":        func(b *Boot) { b.Unlocks = make([]Unlock, maxUnlocks+1) },
	"many failures":       func(b *Boot) { b.Unlocks[0].Failed = make([]Failure, maxFailures+1) },
	"keyslot 99":          func(b *Boot) { b.Unlocks[0].Opened.Keyslot = one(99) },
	"token -1":            func(b *Boot) { b.Unlocks[0].Failed[0].Token = one(-1) },
	"differing PCR 99":    func(b *Boot) { b.Unlocks[0].Failed[0].Differ = []int{99} },
	"long text":           func(b *Boot) { b.Unlocks[0].Opened.Label = strings.Repeat("x", maxText+1) },
	"long error":          func(b *Boot) { b.Unlocks[0].Failed[0].Error = strings.Repeat("x", maxText+1) },
	"long kernel":         func(b *Boot) { b.Kernel = strings.Repeat("x", maxText+1) },
	"many programs":       func(b *Boot) { b.Chain.Parts = make([]Part, maxParts+1) },
	"many signers":        func(b *Boot) { b.Chain.Parts[0].Signers = make([]Signer, maxParts+1) },
	"large grub.cfg":      func(b *Boot) { b.Chain.Config = make([]byte, maxConfig+1) },
	"explained, no value": func(b *Boot) { b.Chain.PCRs[4] = Explained{} },
	"many words": func(b *Boot) {
		b.Chain.PCRs[4] = Explained{Value: b.Chain.PCRs[4].Value, Words: make([]string, maxParts+1)}
	},
	"explained PCR 77": func(b *Boot) { b.Chain.PCRs[77] = b.Chain.PCRs[4] },
	"events of PCR 77": func(b *Boot) { b.Chain.Events[77] = nil },
	"many events":      func(b *Boot) { b.Chain.Events[9] = make([]string, maxEvents+1) },
	"long entry":       func(b *Boot) { b.Chain.Entry.Title = strings.Repeat("x", maxText+1) },
}

func TestHostileRecordIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range hostile {
		f := Folder(t.TempDir())
		b := full()
		change(b)
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		writeFile(t, f.path(bootID), text)
		if got, err := f.Read(bootID); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: read as %+v, %v", name, got, err)
		}
	}
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHostileRecordFileIsRefused(t *testing.T) {
	t.Parallel()
	good, _ := json.Marshal(full())
	for name, prepare := range map[string]func(path string) error{
		"empty":         func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"cut short":     func(p string) error { return os.WriteFile(p, good[:len(good)/2], 0o600) },
		"two documents": func(p string) error { return os.WriteFile(p, append(good, good...), 0o600) },
		"array":         func(p string) error { return os.WriteFile(p, []byte("[]"), 0o600) },
		"null":          func(p string) error { return os.WriteFile(p, []byte("null"), 0o600) },
		"too large": func(p string) error {
			return os.WriteFile(p, append(good, bytes.Repeat([]byte(" "), maxFile)...), 0o600)
		},
		"deep": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("["), maxFile), 0o600) },
		"not a digest": func(p string) error {
			return os.WriteFile(p, bytes.ReplaceAll(good, []byte("0707"), []byte("07xx")), 0o600)
		},
		"long digest": func(p string) error {
			return os.WriteFile(p, bytes.ReplaceAll(good, []byte("0707"), []byte("07070707")), 0o600)
		},
		"folder":            func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":              func(p string) error { return unix.Mkfifo(p, 0o600) },
		"writable by group": func(p string) error { return errors.Join(os.WriteFile(p, good, 0o600), os.Chmod(p, 0o620)) },
		"writable by all":   func(p string) error { return errors.Join(os.WriteFile(p, good, 0o600), os.Chmod(p, 0o602)) },
		"link": func(p string) error {
			return errors.Join(os.WriteFile(p+".real", good, 0o600), os.Symlink(p+".real", p))
		},
	} {
		f := Folder(t.TempDir())
		if err := prepare(f.path(bootID)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := f.Read(bootID); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: read as %+v, %v", name, got, err)
		}
	}
}

func TestRecordOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not applicable here: only root can give a file away")
	}
	f := Folder(t.TempDir())
	if err := errors.Join(f.Write(full()), os.Chown(f.path(bootID), 1000, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(bootID); !errors.Is(err, ErrFormat) {
		t.Errorf("read: %v", err)
	}
}

func TestRecordOfANewerLuksmithIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	text := []byte(`{"version":2,"boot":"` + bootID + `","new":true}`)
	writeFile(t, f.path(bootID), text)
	if _, err := f.Read(bootID); !errors.Is(err, ErrNewer) {
		t.Errorf("reading: %v", err)
	}
	if err := f.Update(bootID, func(*Boot) error { return nil }); !errors.Is(err, ErrNewer) {
		t.Errorf("updating: %v", err)
	}
	if now, _ := os.ReadFile(f.path(bootID)); !bytes.Equal(now, text) {
		t.Errorf("it was changed to %s", now)
	}
}

func TestUnknownMembersOfARecordAreIgnored(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	writeFile(t, f.path(bootID), []byte(`{"version":1,"boot":"`+bootID+`","later":{"x":[1]}}`))
	if _, err := f.Read(bootID); err != nil {
		t.Error(err)
	}
}

func TestDamagedRecordIsBegunAnew(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	writeFile(t, f.path(bootID), []byte("{"))
	if err := f.Update(bootID, func(b *Boot) error { b.Kernel = "6"; return nil }); err != nil {
		t.Fatal(err)
	}
	if b, err := f.Read(bootID); err != nil || b.Kernel != "6" {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestUnlocksAtTheSameTimeAreAllRecorded(t *testing.T) {
	t.Parallel()
	f := Folder(filepath.Join(t.TempDir(), "boots"))
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			err := f.Update(bootID, func(b *Boot) error {
				b.AddUnlock(Unlock{Volume: string(rune('a' + i)), Time: time.Unix(1, 0)})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if b, err := f.Read(bootID); err != nil || len(b.Unlocks) != 8 {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestManyUnlocksKeepTheFirst(t *testing.T) {
	t.Parallel()
	b := &Boot{}
	for i := range 3 * maxUnlocks {
		b.AddUnlock(Unlock{Volume: "v", Time: time.Unix(int64(i), 0)})
	}
	last := b.Unlocks[len(b.Unlocks)-1].Time.Unix()
	if len(b.Unlocks) != maxUnlocks || b.Unlocks[0].Time.Unix() != 0 || last != 3*maxUnlocks-1 {
		t.Errorf("%d, from %v to %d", len(b.Unlocks), b.Unlocks[0].Time, last)
	}
}

func TestOldRecordsGo(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	for i := range maxBoots + 4 {
		b := full()
		b.ID = bootID[:34] + string("0123456789abcdef"[i/16]) + string("0123456789abcdef"[i%16])
		b.Time = b.Time.Add(time.Duration(i) * time.Hour)
		if err := errors.Join(f.Write(b), os.Chtimes(f.path(b.ID), b.Time, b.Time)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(string(f), "note.txt"), nil)
	list, err := f.Boots()
	if err != nil || len(list) != maxBoots {
		t.Fatalf("%d, %v", len(list), err)
	}
	if newest := full().Time.Add((maxBoots + 3) * time.Hour); !list[0].Time.Equal(newest) {
		t.Errorf("the newest is of %v", list[0].Time)
	}
}

func TestCurrentJoinsInitrdAndSystem(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	proc := filepath.Join(root, "proc/sys/kernel/random")
	if err := os.MkdirAll(proc, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(proc, "boot_id"), []byte(bootID+"\n"))
	b, err := Current(root)
	if err != nil || b.ID != bootID || b.Chain != nil || len(b.Unlocks) != 0 {
		t.Fatalf("%+v, %v", b, err)
	}
	early, late := full(), full()
	early.Chain, late.Unlocks = nil, nil
	if err := errors.Join(Runtime(root).Write(early), State(root).Write(late)); err != nil {
		t.Fatal(err)
	}
	b, err = Current(root)
	if err != nil || !reflect.DeepEqual(b, full()) {
		t.Errorf("%+v, %v", b, err)
	}
	if got := b.AtUnlock("sha256", 7); !bytes.Equal(got, full().Unlocks[0].PCRs[7]) || b.AtUnlock("sha1", 7) != nil {
		t.Errorf("at unlock: %x", got)
	}
}

func TestFollowingIsOffUntilItWasWritten(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if f, err := ReadFollowing(root); f != nil || err != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	f := &Following{Since: time.Unix(1, 0).UTC()}
	f.Add(Followed{UUID: "a", Device: "/dev/sda2"})
	f.Add(Followed{UUID: "a", Device: "/dev/sdb2", PCRs: "4+7"})
	if err := f.Write(root); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFollowing(root); err != nil || !reflect.DeepEqual(got, f) || len(got.Volumes) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	writeFile(t, followingPath(root), []byte(`{"version":9}`))
	if _, err := ReadFollowing(root); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	text, _ := json.Marshal(full())
	f.Add(text)
	f.Add([]byte(`{"version":1,"chain":{"pcrs":{"4":{}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		folder := Folder(t.TempDir())
		writeFile(t, folder.path(bootID), text)
		b, err := folder.Read(bootID)
		if err != nil {
			return
		}
		if err := folder.Write(b); err != nil && !strings.Contains(err.Error(), "larger") {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}
