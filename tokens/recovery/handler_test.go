package recovery

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// fixture is what testdata says of a volume.
type fixture struct {
	Name   string
	Token  json.RawMessage `json:"token"`
	Slot   int             `json:"keyslot"`
	Key    string          `json:"derived_passphrase"`
	Volume string          `json:"volume_key_hex"`
}

func fixtures(t *testing.T) []fixture {
	t.Helper()
	files, err := filepath.Glob("testdata/recovery-*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("testdata has %d volumes, %v", len(files), err)
	}
	list := make([]fixture, len(files))
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &list[i])
		}
		if err != nil {
			t.Fatal(err)
		}
		list[i].Name = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return list
}

func TestConformance(t *testing.T) {
	var valid []tokentest.Fixture
	for _, f := range fixtures(t) {
		valid = append(valid, tokentest.Fixture{Name: f.Name, Token: string(f.Token)})
	}
	valid = append(valid, tokentest.Fixture{Name: "ours",
		Token: `{"type":"systemd-recovery","keyslots":["1"],"luksmith":{"label":"safe","created":"2026-11-23T10:00:00Z"}}`})
	tokentest.Run(t, tokentest.Subject{New: func(*testing.T) tokens.Handler { return &Handler{} }, Valid: valid})
}

func TestDescribeShowsTheDateOnly(t *testing.T) {
	for _, c := range []struct{ extra, want string }{
		{`{"created":"2026-11-23T11:00:00+01:00","device":"x","other":1}`, `{"created":"2026-11-23T10:00:00Z"}`},
		{`{"created":"\u001b[2J"}`, `{}`},
		{`{"created":7}`, `{}`},
	} {
		d, err := (&Handler{}).Describe(luks2.Token{Raw: json.RawMessage(`{"type":"systemd-recovery","keyslots":["1"],"luksmith":` + c.extra + `}`)})
		got, _ := json.Marshal(d.Detail)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.extra, got, err, c.want)
		}
	}
}

// TestSystemdsKeysOpenTheirVolumes types the keys of real volumes in ways that
// systemd itself does not take.
func TestSystemdsKeysOpenTheirVolumes(t *testing.T) {
	for _, f := range fixtures(t) {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			d, err := luks2.Open(testenv.Image(t, filepath.Join("testdata", f.Name+".img.zst")), &luks2.OpenOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			list := Candidates(typed(t, strings.ToUpper(strings.ReplaceAll(f.Key, "-", " "))))
			defer secret.WipeAll(list)
			if len(list) != 2 || string(list[1].Bytes()) != f.Key {
				t.Fatalf("candidates: %d, the last is %q, want %q", len(list), list[len(list)-1].Bytes(), f.Key)
			}
			if _, err := d.OpenKeyslot(t.Context(), f.Slot, list[0]); !errors.Is(err, luks2.ErrNoKey) {
				t.Errorf("the text as typed: %v, want ErrNoKey", err)
			}
			vk, err := d.OpenKeyslot(t.Context(), f.Slot, list[1])
			if err != nil {
				t.Fatal(err)
			}
			defer vk.Wipe()
			if got := hex.EncodeToString(vk.Key.Bytes()); got != f.Volume {
				t.Errorf("volume key %s, want %s", got, f.Volume)
			}
		})
	}
}

func enroll(t *testing.T, h *Handler) (*tokens.Enrollment, error) {
	t.Helper()
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 262}, tokentest.NewUI(t))
	if e != nil {
		t.Cleanup(e.Passphrase.Wipe)
	}
	return e, err
}

func TestEnrollGeneratesAnewEachTime(t *testing.T) {
	a, err := enroll(t, &Handler{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := enroll(t, &Handler{})
	if err != nil || a.Passphrase.Equal(b.Passphrase) || !pattern.Match(a.Passphrase.Bytes()) {
		t.Errorf("%v, keys %q and %q", err, a.Passphrase.Bytes(), b.Passphrase.Bytes())
	}
}

func TestEnrollFromKeyFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path, note, want string
	}{
		{file("good", sample+"\n", 0o600), "", ""},
		{file("shouted", strings.ToUpper(sample), 0o600), "", ""},
		{file("shared", sample, 0o644), "Other users may read the recovery key in " + dir + "/shared.", ""},
		{file("empty", "", 0o600), "", "reading recovery key file " + dir + "/empty: the text is empty"},
		{file("short", sample[:62], 0o600), "", "reading recovery key file " + dir + "/short: there are 56 letters, a recovery key has 64"},
		{file("zero", strings.Repeat("c", 64), 0o600), "", "reading recovery key file " + dir + "/zero: the key is not random"},
		{file("big", strings.Repeat(" ", maxKeyFile)+sample, 0o600), "", "reading recovery key file " + dir + "/big: secret is longer than allowed"},
		{dir, "", "reading recovery key file " + dir + ": read " + dir + ": is a directory"},
		{"/dev/zero", "", "reading recovery key file /dev/zero: secret is longer than allowed"},
		{dir + "/none", "", "opening recovery key file: open " + dir + "/none: no such file or directory"},
	} {
		t.Run(filepath.Base(c.path), func(t *testing.T) {
			e, err := enroll(t, &Handler{KeyFile: c.path})
			if c.want != "" {
				if err == nil || err.Error() != c.want {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			if err != nil || string(e.Passphrase.Bytes()) != sample || strings.Join(e.Notes, "|") != c.note {
				t.Errorf("%v, %+v, want note %q", err, e, c.note)
			}
		})
	}
}

func TestPlanChecksTheKeyFile(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(good, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := (&Handler{KeyFile: good}).Plan(nil); err != nil || text != "recovery key from "+good {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := (&Handler{KeyFile: good + "x"}).Plan(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want not found", err)
	}
	if err := os.WriteFile(good, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (&Handler{KeyFile: good}).Plan(nil); err == nil {
		t.Error("a file without a key is planned")
	}
}

func TestKeyFileMayBeAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	h := &Handler{KeyFile: path}
	if _, err := h.Plan(nil); err != nil {
		t.Errorf("Plan: %v", err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0) // both ends: opening does not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Enroll(ctx, &tokens.EnrollRequest{}, tokentest.NewUI(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent pipe: %v, want the context's error", err)
	}
	if _, err := w.WriteString(sample + "\n"); err != nil {
		t.Fatal(err)
	}
	go func() { // the end comes when all was read: what nobody has open is lost at Close
		for unread := 1; unread > 0; time.Sleep(time.Millisecond) {
			unread, _ = unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ)
		}
		_ = w.Close()
	}()
	if e, err := enroll(t, h); err != nil || string(e.Passphrase.Bytes()) != sample {
		t.Errorf("%v", err)
	}
}
