package fido2

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
	"luksmith/tokens/fido2/wire"
)

// The tests of this file run in a guest: real hidraw devices, found by libfido2
// itself, and the installed helper program. What the commands do with such keys is in
// e2e/fido2_test.go.

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

// A key whose node appears while it is being opened: sysfs is first.
func TestGuestUnlocksAtOnceAfterPluggingIn(t *testing.T) {
	k := plugUHID(t, fidotest.Config{})
	tok, e := enroll(t, &Handler{}, 0)
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
