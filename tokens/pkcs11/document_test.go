package pkcs11

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/tokens"
)

// documented are the commands of docs/piv.md, in order.
func documented(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "piv.md"))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			list = append(list, strings.TrimSpace(command))
		}
	}
	return list
}

// TestCommandsOfTheDocument runs docs/piv.md on a fresh token: what pkcs11-tool
// does as it stands, and what cryptenroll does below its command line.
func TestCommandsOfTheDocument(t *testing.T) {
	t.Parallel()
	store := testenv.NewSoftHSM(t)
	store.AddToken(t, card)
	enrolled := map[string]*tokens.Enrollment{}
	ran := map[string]int{}
	for _, command := range documented(t) {
		words := strings.Fields(strings.ReplaceAll(command, "'", ""))
		ran[words[0]]++
		switch words[0] {
		case "pkcs11-tool":
			cmd := exec.Command(words[0], append(words[1:], "--module", store.Module, "--token-label", card.Label, "--pin", card.PIN)...)
			cmd.Env = append(os.Environ(), store.Env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		case "cryptenroll":
			runCryptenroll(t, store, words[1:], enrolled)
		case "ykman", "home": // needs a YubiKey; a line of crypttab
		default:
			t.Errorf("nobody runs %q", command)
		}
	}
	if ran["pkcs11-tool"] != 2 || ran["cryptenroll"] != 5 || ran["ykman"] != 7 || len(enrolled) != 2 {
		t.Errorf("ran %v, enrolled %d", ran, len(enrolled))
	}
}

// runCryptenroll does what the command line says, with the handler's own options.
func runCryptenroll(t *testing.T, store *testenv.SoftHSM, args []string, enrolled map[string]*tokens.Enrollment) {
	t.Helper()
	h := &Handler{Connect: connect(t, store.Env...)}
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		i := slices.IndexFunc(h.Options(), func(o tokens.Option) bool { return o.Name == name })
		switch {
		case arg == "test" || arg == "pkcs11-upgrade" || strings.HasPrefix(arg, "/dev/") || value == "list":
		case i < 0:
			t.Fatalf("no option %q", arg)
		default:
			if err := h.Options()[i].Set(value); err != nil {
				t.Fatalf("%s: %v", arg, err)
			}
		}
	}
	table, err := h.Devices(t.Context())
	if err != nil || len(table.Rows) != 2 { // the keys that pkcs11-tool made
		t.Fatalf("%q, %v", table.Rows, err)
	}
	ec, rsa := table.Rows[0][4], table.Rows[1][4]
	switch {
	case args[0] == "--pkcs11-token-uri=list":
	case h.TokenURI == auto: // there are two keys here
		h.TokenURI = ec
		enrolled["EC"] = enroll(t, h, 262, card.PIN)
	case h.TokenURI != "": // a card of the reader's own
		h.TokenURI = rsa
		enrolled["RSA"] = enroll(t, h, 252, card.PIN)
	case args[0] == "pkcs11-upgrade":
		e := enrolled["RSA"]
		got, err := upgradeAll(t, h, 262, map[int]string{0: string(e.Passphrase.Bytes())}, []luks2.Token{token(0, string(e.Token))}, card.PIN)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		e.Token = got[0].Token
	case args[0] == "test":
		for kind, e := range enrolled {
			if got, err := unlock(t, h, string(e.Token), card.PIN); err != nil || !got.Equal(e.Passphrase) {
				t.Errorf("%s: %v", kind, err)
			}
		}
	default:
		t.Errorf("nobody runs cryptenroll %q", args)
	}
}
