package fido2

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/tokentest"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func TestKeyDataNeedsItsParameters(t *testing.T) {
	t.Parallel()
	short, right := secret.New(31), secret.New(32)
	defer short.Wipe()
	defer right.Wipe()
	for name, tt := range map[string]struct {
		h    *Handler
		data secret.Secret
		want string
	}{
		"no credential": {&Handler{}, right, "fido2-cid="},
		"short salt":    {&Handler{Credential: []byte{1}}, short, "31 bytes instead of 32"},
	} {
		_, err := tt.h.Unlock(t.Context(), &tokens.UnlockRequest{KeyData: tt.data}, tokentest.NewUI(t))
		if !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCrypttabOptions(t *testing.T) {
	t.Parallel()
	h := &Handler{}
	set := func(name, value string) error {
		i := slices.IndexFunc(h.Options(), func(o tokens.Option) bool { return o.Name == name && o.Place&tokens.Crypttab != 0 })
		return h.Options()[i].Set(value)
	}
	for name, value := range map[string]string{"fido2-cid": "AAEC", "fido2-rp": "example.org", "fido2-pin": "yes", "fido2-up": "0", "fido2-uv": "off", "fido2-device": "auto"} {
		if err := set(name, value); err != nil {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	if !bytes.Equal(h.Credential, []byte{0, 1, 2}) || h.RP != "example.org" || !*h.NeedPIN || *h.NeedUP || *h.NeedUV {
		t.Errorf("%+v", h)
	}
	for name, value := range map[string]string{"fido2-cid": "!", "fido2-rp": "", "fido2-pin": "maybe"} {
		if err := set(name, value); err == nil {
			t.Errorf("%s=%s is accepted", name, value)
		}
	}
	if err := set("fido2-cid", strings.Repeat("AAAA", 400)); err == nil {
		t.Error("a credential id of 1200 bytes is accepted")
	}
	if err := set("fido2-cid", "auto"); err != nil || h.Credential != nil {
		t.Errorf("auto: %v", err)
	}
}
