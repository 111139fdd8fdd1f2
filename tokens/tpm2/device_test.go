package tpm2

import (
	"errors"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

func TestDeviceTable(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.WithPIN = PINDirect
	tok := asToken(0, enrolled(t, h, "4711").Token)
	row := func() []string {
		t.Helper()
		table, err := h.Devices(t.Context())
		if err != nil || len(table.Rows) != 1 {
			t.Fatalf("%+v, %v", table, err)
		}
		return table.Rows[0]
	}
	if got := row(); got[0] != swtpm.Device() || got[1] != "IBM SW TPM" || got[3] != "sha256 sha384 sha512 sha1" || got[4] != "0 of 3" || got[5] != "-" {
		t.Errorf("%q", got)
	}
	ui := tokentest.NewUI(t, tokentest.Answer{Text: "wrong"}, tokentest.Answer{Err: tokens.ErrNoPrompt})
	if _, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: []luks2.Token{tok}}, ui); !errors.Is(err, tokens.ErrWrongPIN) {
		t.Fatal(err)
	}
	if got := row(); got[4] != "1 of 3" || got[5] != "in at most 16 min 40 s" {
		t.Errorf("%q", got)
	}
}
