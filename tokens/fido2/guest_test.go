package fido2

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/testenv"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/fido2/fidotest"
	"luksmith/tokens/fido2/wire"
	"luksmith/tokens/tokentest"
)

// The tests of this file run in a guest (e2e/fido2_test.go): real hidraw devices,
// found by libfido2 itself, and the installed helper program.

// guestKey is a key that the kernel takes for a USB device.
type guestKey struct {
	*fidotest.Key
	t    *testing.T
	gone chan struct{}
}

// plugUHID plugs a key in and waits until it is listed.
func plugUHID(t *testing.T, c fidotest.Config) *guestKey {
	t.Helper()
	testenv.NeedGuest(t)
	k := &guestKey{Key: fidotest.New(c), t: t}
	k.plug(c.Descriptor == nil)
	t.Cleanup(k.unplug)
	return k
}

func (k *guestKey) plug(listed bool) {
	k.t.Helper()
	before := k.listed()
	gone := make(chan struct{})
	k.gone = gone
	go func() {
		defer close(gone)
		if err := k.UHID(context.Background()); err != nil {
			k.t.Errorf("uhid: %v", err)
		}
	}()
	if listed {
		k.waitFor("plugged in", func() bool { return k.listed() == before+1 })
	}
}

func (k *guestKey) unplug() {
	k.Unplug()
	<-k.gone
}

func (k *guestKey) listed() int {
	found, err := (&Handler{}).list(context.Background())
	if err != nil {
		k.t.Error(err)
		return 0
	}
	defer found.close()
	return len(found.devices)
}

func (k *guestKey) waitFor(what string, done func() bool) {
	k.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("not %s after 20 s", what)
		}
	}
}

func TestGuestListsKeys(t *testing.T) {
	plugUHID(t, fidotest.Config{Product: "Test Key A", PIN: pin})
	keyboard := fidotest.Config{Product: "Test Keyboard", Descriptor: []byte{0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7,
		0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0xc0}}
	other := plugUHID(t, keyboard)
	other.waitFor("two hidraw devices", func() bool {
		entries, err := os.ReadDir("/sys/class/hidraw")
		return err == nil && len(entries) == 2
	})
	table, err := (&Handler{}).Devices(t.Context())
	if err != nil || len(table.Rows) != 1 || !slices.Equal(table.Rows[0][2:8], []string{"Test Key A", "yes", "yes", "yes", "yes", "no"}) {
		t.Fatalf("%+v, %v", table, err)
	}
	entries, err := os.ReadDir("/sys/class/hidraw")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := "/dev/" + e.Name()
		if path == table.Rows[0][0] {
			continue
		}
		_, err := (&Handler{Device: path}).Enroll(t.Context(), request(), tokentest.NewUI(t))
		if err == nil || !strings.Contains(err.Error(), "another kind of HID device") {
			t.Errorf("enrolling a keyboard: %v", err)
		}
	}
}

func TestGuestEnrolsAndUnlocks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config fidotest.Config
		set    func(*Handler)
		needs  string
		answer []string
	}{
		{"A, PIN and touch", fidotest.Config{PIN: pin}, with(nil, nil, nil), "PIN, touch", []string{pin}},
		{"B, PIN", fidotest.Config{PIN: pin, Firmware: fidotest.CTAP20}, with(nil, boolean(false), nil), "PIN", []string{pin}},
		{"A, fingerprint", fidotest.Config{BuiltInUV: true}, with(nil, nil, boolean(true)), "user verification, touch", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plugUHID(t, tt.config)
			h := &Handler{}
			tt.set(h)
			tok, e := enrol(t, h, 0, tt.answer...)
			if got := strings.Join(e.Requires, ", "); got != tt.needs {
				t.Errorf("requires %q, want %q", got, tt.needs)
			}
			got, err := unlock(t, &Handler{}, tokentest.NewUI(t, tokentest.Typed(tt.answer...)...), opener(e.Passphrase), tok)
			wantUnlocked(t, got, err, e)
		})
	}
}

func TestGuestOnlyTheRightKeyPrompts(t *testing.T) {
	a := plugUHID(t, fidotest.Config{PIN: "aaaa", Product: "Key A"})
	b := plugUHID(t, fidotest.Config{PIN: "bbbb", Product: "Key B", Firmware: fidotest.CTAP20})
	tok, e := enrol(t, &Handler{Device: "Key B"}, 0, "bbbb")
	ui := tokentest.NewUI(t, tokentest.Typed("bbbb")...)
	got, err := unlock(t, &Handler{}, ui, opener(e.Passphrase), tok)
	wantUnlocked(t, got, err, e)
	if s := a.Stats(); s.Touches != 0 || s.WrongPINs != 0 {
		t.Errorf("the other key: %+v", s)
	}
	if text := ui.Prompts()[0].Text; text != "PIN of Key B" {
		t.Errorf("prompt %q", text)
	}
	b.unplug()
	_, err = unlock(t, &Handler{}, tokentest.NewUI(t), nil, tok)
	wantError(t, err, tokens.ErrNoDevice, "Key A")
}

// The symptom was: three enrolled slots and one wrong PIN cost three tries.
func TestGuestWrongPINCostsOneTry(t *testing.T) {
	k := plugUHID(t, fidotest.Config{PIN: pin})
	var list []luks2.Token
	for i := range 3 {
		tok, _ := enrol(t, &Handler{}, i, pin)
		list = append(list, tok)
	}
	_, err := unlock(t, &Handler{}, tokentest.NewUI(t, tokentest.Typed("wrong")...), nil, list...)
	wantError(t, err, tokens.ErrWrongPIN, "7 tries left")
	if k.PINRetries() != 7 {
		t.Errorf("%d tries left", k.PINRetries())
	}
}

// unplugger pulls the key out when it is to be touched.
type unplugger struct {
	*tokentest.UI
	k *guestKey
}

func (u unplugger) Show(text string) func() {
	done := u.UI.Show(text)
	time.AfterFunc(300*time.Millisecond, u.k.Unplug)
	return done
}

func TestGuestUnpluggedDuringTheTouch(t *testing.T) {
	k := plugUHID(t, fidotest.Config{})
	tok, e := enrol(t, &Handler{}, 0)
	k.SetTouch(fidotest.Touch{Never: true})
	begin := time.Now()
	_, err := unlock(t, &Handler{}, unplugger{tokentest.NewUI(t), k}, nil, tok)
	wantError(t, err, tokens.ErrNoDevice, "was unplugged")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("noticed after %v", took)
	}
	<-k.gone
	_, err = unlock(t, &Handler{}, tokentest.NewUI(t), nil, tok)
	wantError(t, err, tokens.ErrNoDevice, "is not plugged in")
	// Plugged in again while the caller waits, as on an event of hidraw.
	k.SetTouch(fidotest.Touch{})
	k.PlugIn()
	k.plug(true)
	got, err := unlock(t, &Handler{}, tokentest.NewUI(t), opener(e.Passphrase), tok)
	wantUnlocked(t, got, err, e)
}

// A key whose node appears while it is being opened: sysfs is first.
func TestGuestUnlocksAtOnceAfterPluggingIn(t *testing.T) {
	k := plugUHID(t, fidotest.Config{})
	tok, e := enrol(t, &Handler{}, 0)
	k.unplug()
	k.PlugIn()
	k.plug(false)
	h := &Handler{}
	k.waitFor("unlocked", func() bool {
		got, err := unlock(t, h, tokentest.NewUI(t), opener(e.Passphrase), tok)
		if err != nil && !errors.Is(err, tokens.ErrNoDevice) {
			t.Fatal(err)
		}
		return got != nil
	})
}

// First the library is taken away, then the helper: tokens can still be listed,
// and the message says what is missing.
func TestGuestSupportTakenAway(t *testing.T) {
	testenv.NeedGuest(t)
	tok := luks2.Token{ID: 3, Type: Type, Raw: readFixture(t, "systemd257-fido2-up").Token}
	for _, tt := range []struct{ path, want string }{
		{"/usr/lib/x86_64-linux-gnu/libfido2.so.1", "libfido2.so.1"},
		{"/usr/lib/luksmith/luksmith-fido2", "no luksmith-fido2 in "},
	} {
		if err := os.Rename(tt.path, tt.path+".hidden"); err != nil {
			t.Fatal(err)
		}
		_, err := unlock(t, &Handler{}, tokentest.NewUI(t), nil, tok)
		wantError(t, err, tokens.ErrNotBuilt, "FIDO2 support not installed (")
		wantError(t, err, tokens.ErrNotBuilt, tt.want)
		if _, err := (&Handler{}).Describe(tok); err != nil {
			t.Errorf("%s: %v", tt.path, err)
		}
		if err := os.Rename(tt.path+".hidden", tt.path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGuestTools(t *testing.T) {
	plugUHID(t, fidotest.Config{PIN: pin, Product: "Test Key A"})
	out := testenv.Run(t, "fido2-token", "-L")
	path, _, ok := strings.Cut(out, ":")
	if !ok || !strings.Contains(out, "vendor=0x1209, product=0xf1d0") {
		t.Fatalf("fido2-token -L: %q", out)
	}
	if info := testenv.Run(t, "fido2-token", "-I", path); !strings.Contains(info, "pin retries: 8") || !strings.Contains(info, "hmac-secret") {
		t.Errorf("fido2-token -I: %s", info)
	}
	found, err := (&Handler{}).list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer found.close()
	if len(found.devices) != 1 || found.devices[0] != (wire.Device{Path: path, Product: "Test Key A", Vendor: 0x1209, ProductID: 0xf1d0}) {
		t.Errorf("%+v", found.devices)
	}
}

// Real systemd 252 finds the key by itself and maps what we enrolled with dm-crypt.
// What it enrols itself is opened on the machine itself, see peer_test.go.
func TestGuestSystemd252MapsWhatWeEnrolled(t *testing.T) {
	for _, tt := range []struct {
		name           string
		firmware       fidotest.Firmware
		withPIN, touch bool
		answers        []string
	}{
		{"A, PIN and touch", fidotest.CTAP21, true, true, []string{pin}},
		{"B, PIN", fidotest.CTAP20, true, false, []string{pin}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := plugUHID(t, fidotest.Config{Firmware: tt.firmware, PIN: pin})
			_, e := enrol(t, &Handler{WithPIN: &tt.withPIN, WithUP: &tt.touch}, 1, tt.answers...)
			image := newImage(t, t.TempDir())
			addToVolume(t, image, e)
			cmd := exec.Command("/lib/systemd/systemd-cryptsetup", "attach", "theirs", image, "-", "fido2-device=auto,headless=1,token-timeout=10")
			cmd.Env = append(os.Environ(), "PIN="+pin)
			run(t, cmd)
			testenv.Run(t, "cryptsetup", "close", "theirs")
			if n := k.Stats().WrongPINs; n != 0 {
				t.Errorf("%d wrong PINs", n)
			}
		})
	}
}
