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
	"testing"
	"time"
)

func attempt() *Unlock {
	u := full().Unlocks[0]
	u.Time = u.Time.Add(time.Minute)
	return &u
}

func TestAppendBeginsAndContinuesARecord(t *testing.T) {
	t.Parallel()
	f := Folder(filepath.Join(t.TempDir(), "run", "boots"))
	for n := 1; n < 4; n++ {
		if err := f.Append(bootID, attempt()); err != nil {
			t.Fatal(err)
		}
		b, err := f.Read(bootID)
		if err != nil || len(b.Unlocks) != n || !reflect.DeepEqual(b.Unlocks[n-1], *attempt()) || b.Kernel == "" || b.Time.IsZero() {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	if err := f.Append("../x", attempt()); !errors.Is(err, ErrFormat) {
		t.Errorf("identity with path: %v", err)
	}
}

func TestAppendKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	if err := f.Write(full()); err != nil {
		t.Fatal(err)
	}
	if err := f.Append(bootID, attempt()); err != nil {
		t.Fatal(err)
	}
	want := full()
	want.AddUnlock(*attempt())
	if got, err := f.Read(bootID); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAppendedAttemptCanBeRead: whatever a header or a device says, the record of the
// boot stays one.
func TestAppendedAttemptCanBeRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", maxText)
	u := attempt()
	u.Volume, u.Name, u.Opened.Label, u.Failed[0].Error = long, long, long, "\xff\x00"+long
	for range 100 {
		u.Failed = append(u.Failed, u.Failed[0])
	}
	f := Folder(t.TempDir())
	for range maxUnlocks + 10 {
		if err := f.Append(bootID, &Unlock{Volume: "later"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Append(bootID, u); err != nil {
		t.Fatal(err)
	}
	if b, err := f.Read(bootID); err != nil || len(b.Unlocks) != maxUnlocks || len(b.Unlocks[maxUnlocks-1].Failed) != maxFailures {
		t.Errorf("%v", err)
	}
}

func TestAppendLeavesANewerRecordAloneAndReplacesADamagedOne(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	newer := []byte(`{"version": 2, "boot": "` + bootID + `", "x": 1}`)
	writeFile(t, f.path(bootID), newer)
	if err := f.Append(bootID, attempt()); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
	if text, _ := os.ReadFile(f.path(bootID)); !bytes.Equal(text, newer) {
		t.Errorf("it was changed: %s", text)
	}
	other, _ := json.Marshal(&Boot{Version: 1, ID: "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a02", Unlocks: full().Unlocks})
	for _, text := range [][]byte{nil, []byte("["), []byte(`{"version": 1}`), other} {
		writeFile(t, f.path(bootID), text)
		if err := f.Append(bootID, attempt()); err != nil {
			t.Fatal(err)
		}
		if b, err := f.Read(bootID); err != nil || len(b.Unlocks) != 1 {
			t.Errorf("%q: %+v, %v", text, b, err)
		}
	}
}

// TestAppendDoesNotWaitForEver: somebody who holds the lock keeps no volume closed.
func TestAppendDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	f := Folder(t.TempDir())
	unlock, err := f.lock(0)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := f.Append(bootID, attempt()); err == nil || time.Since(start) > 5*appendWait {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	unlock()
	if _, err := f.Read(bootID); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := f.Append(bootID, attempt()); err != nil {
		t.Error(err)
	}
}
