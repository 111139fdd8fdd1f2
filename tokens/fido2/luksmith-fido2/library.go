//go:build cgo

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	libfido2 "github.com/keys-pub/go-libfido2"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens/fido2/wire"
)

// library is [wire.Backend] over libfido2 1.12 or later.
//
// What it works around in go-libfido2 and libfido2: there is no deadline, so the
// caller kills this process; copies of the PIN stay in C memory until it ends;
// empty credential ids panic, so package wire refuses them; opening leaks when it
// fails, so [ready] looks at the device first; an absent device, one that is in
// use and one that may not be opened give the same error, so [ready] tells them
// apart; the numbers of vendor and product are signed.
type library struct {
	notify func(event string)
}

var _ wire.Backend = (*library)(nil)

// clientDataHash is the one that systemd uses: nobody checks the signature.
var clientDataHash = make([]byte, sha256.Size)

// List implements [wire.Backend].
func (l *library) List(context.Context) ([]wire.Device, error) {
	found, err := libfido2.DeviceLocations()
	if err != nil {
		return nil, errorOf(err)
	}
	list := []wire.Device{}
	for _, d := range found {
		// libfido2 also lists NFC and smart card readers, with names that are no
		// devices.
		if !strings.HasPrefix(d.Path, "/dev/") || len(list) == wire.MaxDevices {
			continue
		}
		if d.Product == "" {
			d.Product = hidName(d.Path)
		}
		list = append(list, wire.Device{Path: d.Path, Manufacturer: d.Manufacturer, Product: d.Product,
			Vendor: uint16(d.VendorID), ProductID: uint16(d.ProductID)})
	}
	return list, nil
}

// hidName is the kernel's name of a device, which even those that are not on USB
// have; libfido2 knows only the strings of USB.
func hidName(path string) string {
	b, err := os.ReadFile(filepath.Join("/sys/class/hidraw", filepath.Base(path), "device/uevent"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "HID_NAME="); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// Info implements [wire.Backend].
func (l *library) Info(ctx context.Context, path string) (*wire.Info, error) {
	var info *wire.Info
	err := l.use(ctx, path, func(d *libfido2.Device) error {
		i, err := d.Info()
		if err != nil {
			return err
		}
		info = &wire.Info{AAGUID: i.AAGUID, Versions: i.Versions, Extensions: i.Extensions, Options: map[string]bool{}, PINRetries: -1}
		for _, o := range i.Options {
			info.Options[o.Name] = o.Value == libfido2.True
		}
		if info.Options["clientPin"] {
			info.PINRetries, err = d.RetryCount()
		}
		return err
	})
	return info, err
}

// MakeCredential implements [wire.Backend].
func (l *library) MakeCredential(ctx context.Context, c *wire.NewCredential, pin secret.Secret) (*wire.Credential, error) {
	opts := &libfido2.MakeCredentialOpts{
		Extensions: []libfido2.Extension{libfido2.HMACSecretExtension},
		RK:         option(c.RK), UV: option(c.UV),
	}
	if c.ProtectUV {
		opts.Extensions = append(opts.Extensions, libfido2.CredProtectExtension)
		opts.CredProtect = libfido2.CredProtectUVRequired
	}
	user := libfido2.User{ID: c.UserID, Name: c.UserName, DisplayName: c.DisplayName}
	var made *wire.Credential
	err := l.use(ctx, c.Path, func(d *libfido2.Device) error {
		// The library copies the PIN into C memory, which ends with this process.
		at, err := d.MakeCredential(clientDataHash, libfido2.RelyingParty{ID: c.RP, Name: c.RPName}, user,
			libfido2.CredentialType(c.Algorithm), secret.UnsafeString(pin), opts)
		if err == nil {
			made = &wire.Credential{ID: at.CredentialID}
		}
		return err
	})
	return made, err
}

// Assert implements [wire.Backend].
func (l *library) Assert(ctx context.Context, a *wire.Assertion, pin, salts secret.Secret) (*wire.Asserted, error) {
	opts := &libfido2.AssertionOpts{UP: option(a.UP), UV: option(a.UV)}
	if salts.Len() > 0 {
		opts.Extensions = []libfido2.Extension{libfido2.HMACSecretExtension}
		opts.HMACSalt = salts.Bytes()
	}
	var answer *libfido2.Assertion
	if err := l.use(ctx, a.Path, func(d *libfido2.Device) (err error) {
		answer, err = d.Assertion(a.RP, clientDataHash, [][]byte{a.Credential}, secret.UnsafeString(pin), opts)
		return err
	}); err != nil {
		return nil, err
	}
	out := secret.Take(answer.HMACSecret)
	flags, err := authDataFlags(answer.AuthDataCBOR)
	if err == nil && out.Len() != salts.Len() {
		err = fmt.Errorf("%d bytes of hmac-secret for %d bytes of salt", out.Len(), salts.Len())
	}
	if err != nil {
		out.Wipe()
		return nil, &helper.Error{Code: wire.Broken, Message: "answer with " + err.Error()}
	}
	return &wire.Asserted{UP: flags&flagUP != 0, UV: flags&flagUV != 0, Secret: out}, nil
}

// Flags of authenticator data, WebAuthn level 2 §6.1.
const (
	flagUP = 0x01
	flagUV = 0x04
)

// authDataFlags takes the flags out of authenticator data, which libfido2 hands
// out as a CBOR byte string: its head, 32 bytes of hash, then the flags.
func authDataFlags(b []byte) (byte, error) {
	const flagsAt = sha256.Size
	head := map[byte]int{0x58: 2, 0x59: 3} // lengths of one and two bytes
	if len(b) == 0 || head[b[0]] == 0 || len(b) <= head[b[0]]+flagsAt {
		return 0, fmt.Errorf("%d bytes of authenticator data", len(b))
	}
	return b[head[b[0]]+flagsAt], nil
}

func option(o wire.Option) libfido2.OptionValue {
	return map[wire.Option]libfido2.OptionValue{wire.Omit: libfido2.Default, wire.True: libfido2.True, wire.False: libfido2.False}[o]
}

// use runs f on the device at path. When ctx ends, the key is told to cancel.
func (l *library) use(ctx context.Context, path string, f func(d *libfido2.Device) error) error {
	before, err := ready(ctx, path, l.notify)
	if err != nil {
		return err
	}
	d, err := libfido2.NewDevice(path)
	if err != nil {
		return errorOf(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = d.Cancel() })
	defer stop()
	err = f(d)
	if err == nil {
		return nil
	}
	err = errorOf(err)
	if wire.CodeOf(err) == wire.Broken && removed(path, before) {
		return &helper.Error{Code: wire.Removed, Message: path + " was unplugged"}
	}
	return err
}
