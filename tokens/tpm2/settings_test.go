package tpm2

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

func TestPlanRefusesWhatOldSystemdDoesNotKnow(t *testing.T) {
	t.Parallel()
	key, lock := pathOption{true, publicKeyPath}, pathOption{true, "testdata/pcrlock.json"}
	ref := "initrd"
	for name, c := range map[string]struct {
		set   func(*Handler)
		since int
	}{
		"PIN":        {func(h *Handler) { h.pinMode = pinYes }, 251},
		"Argon2id":   {func(h *Handler) { h.pinMode = pinArgon2id }, 262},
		"bank":       {func(h *Handler) { h.pcrs = mustPCRs(t, "7:sha1") }, 250},
		"signed":     {func(h *Handler) { h.publicKey = key }, 252},
		"reference":  {func(h *Handler) { h.publicKey, h.publicKeyRef = key, &ref }, 262},
		"pcrlock":    {func(h *Handler) { h.pcrlock = lock }, 255},
		"both":       {func(h *Handler) { h.publicKey, h.pcrlock = key, lock }, 257},
		"handle":     {func(h *Handler) { h.parentHandle = 0x81000002 }, 255},
		"device key": {func(h *Handler) { h.deviceKey = "testdata/srk.tpm2b_public" }, 255},
	} {
		for compat := 248; compat <= 262; compat++ {
			h := handlerFor(t, "")
			c.set(h)
			_, err := h.Plan(&tokens.EnrollRequest{Compat: compat})
			if (err == nil) != (compat >= c.since) || err != nil && (!errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "known to systemd")) {
				t.Errorf("%s for systemd %d: %v", name, compat, err)
			}
		}
	}
}

func TestPlanRefusesImpossibleCombinations(t *testing.T) {
	t.Parallel()
	key := pathOption{true, publicKeyPath}
	empty := chip.PCRSet(0)
	ref := "x"
	for name, c := range map[string]struct {
		set  func(*Handler)
		want string
	}{
		"latch twice":            {func(h *Handler) { h.latch, h.pcrs = true, mustPCRs(t, "15") }, "names too"},
		"cost without PIN":       {func(h *Handler) { h.argon.memory = 1 << 20 }, "need --tpm2-with-pin"},
		"cost of a direct PIN":   {func(h *Handler) { h.pinMode, h.argon.memory = pinDirect, 1<<20 }, "this one is not"},
		"too little memory":      {func(h *Handler) { h.pinMode, h.argon.memory = pinArgon2id, 1024 }, "--tpm2-argon2id"},
		"too much memory":        {func(h *Handler) { h.pinMode, h.argon.memory = pinArgon2id, 1<<41 }, "memory"},
		"no such key":            {func(h *Handler) { h.publicKey = pathOption{true, "/nonexistent"} }, "no such file"},
		"key is no PEM":          {func(h *Handler) { h.publicKey = pathOption{true, "testdata/pcrlock.json"} }, "no PEM"},
		"private key":            {func(h *Handler) { h.publicKey = pathOption{true, "testdata/pcr-sign-key.pem"} }, "want a public key"},
		"no signed PCR":          {func(h *Handler) { h.publicKey, h.publicKeyPCRs = key, &empty }, "is empty"},
		"reference without key":  {func(h *Handler) { h.publicKeyRef = &ref }, "need a public key"},
		"no such signature":      {func(h *Handler) { h.publicKey, h.signature = key, pathOption{true, "/nonexistent"} }, "no such file"},
		"signature is rubbish":   {func(h *Handler) { h.publicKey, h.signature = key, pathOption{true, publicKeyPath} }, "no JSON object"},
		"pcrlock is rubbish":     {func(h *Handler) { h.pcrlock = pathOption{true, publicKeyPath} }, "no JSON object"},
		"device key is rubbish":  {func(h *Handler) { h.deviceKey = publicKeyPath }, "reading the storage key"},
		"offline without values": {func(h *Handler) { h.deviceKey, h.pcrs = "testdata/srk.tpm2b_public", mustPCRs(t, "7") }, "a value for every PCR"},
		"both devices":           {func(h *Handler) { h.deviceKey, h.device = "testdata/srk.tpm2b_public", "auto" }, "exclude each other"},
		"offline shards": {func(h *Handler) {
			h.deviceKey, h.publicKey, h.pcrlock = "testdata/srk.tpm2b_public", key, pathOption{true, "testdata/pcrlock.json"}
		}, "cannot be sealed"},
	} {
		h := handlerFor(t, "")
		c.set(h)
		if _, err := h.Plan(&tokens.EnrollRequest{Compat: 262}); !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestPlanText(t *testing.T) {
	t.Parallel()
	h := handlerFor(t, "")
	h.pcrs, h.pinMode, h.latch = mustPCRs(t, "7:sha256"), pinYes, true
	if text, err := h.Plan(&tokens.EnrollRequest{Compat: 262}); err != nil || text != "TPM2, PCR 7+15 (sha256), PIN" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := handlerFor(t, "").Plan(&tokens.EnrollRequest{Compat: 262}); err != nil || text != "TPM2, no further condition" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNotesWarn(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, c := range map[string]struct {
		set  func(*Handler)
		want string
		not  string
	}{
		"nothing":  {func(*Handler) {}, "Any operating system", ""},
		"PCR 7":    {func(h *Handler) { h.pcrs = mustPCRs(t, "7") }, "PCR 7 alone", "Any operating system"},
		"latch":    {func(h *Handler) { h.latch = true }, "Any operating system", "No latch"},
		"no latch": {func(h *Handler) { h.pcrs = mustPCRs(t, "7") }, "No latch", ""},
		"PIN":      {func(h *Handler) { h.pcrs, h.pinMode = mustPCRs(t, "7"), pinDirect }, "No latch", "PCR 7 alone"},
		"kernel":   {func(h *Handler) { h.pcrs = mustPCRs(t, "9") }, "PCR 9 changes with an update of kernel", ""},
		"SHA-1":    {func(h *Handler) { h.pcrs = mustPCRs(t, "7:sha1") }, "Bank sha1 is weak", ""},
		"zero":     {func(h *Handler) { h.pcrs = mustPCRs(t, "7") }, "Nothing has been measured into PCR 7", ""},
	} {
		h := handlerFor(t, swtpm.Device())
		c.set(h)
		var answers []string
		if h.pinMode != pinNone {
			answers = []string{"4711"}
		}
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{}, answers...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		notes := strings.Join(e.Notes, "\n")
		if !strings.Contains(notes, c.want) || c.not != "" && strings.Contains(notes, c.not) {
			t.Errorf("%s: notes %q", name, e.Notes)
		}
	}
}

// TestFilesThatArePickedUpAreMentioned: systemd takes them silently.
func TestFilesThatArePickedUpAreMentioned(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	h := handlerFor(t, swtpm.Device())
	for path, content := range map[string]string{"/etc/systemd/" + publicKeyFile: publicKeyPath, "/run/systemd/" + signatureFile: "testdata/" + signatureFile,
		"/var/lib/systemd/pcrlock.json": "testdata/pcrlock.json"} {
		path = h.Paths.join(path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, readTestFile(t, content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := enrolled(t, h)
	tok := tokenOf(t, e.Token)
	if len(tok.blobs) != 2 || tok.SignedPCRs != chip.PCRSetOf(11) || !tok.PCRLock {
		t.Errorf("%+v", tok)
	}
	notes := strings.Join(e.Notes, "\n")
	if !strings.Contains(notes, publicKeyFile) || !strings.Contains(notes, "pcrlock.json") {
		t.Errorf("notes %q", e.Notes)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
	h.publicKey, h.pcrlock = pathOption{given: true}, pathOption{given: true}
	if tok := tokenOf(t, enrolled(t, h).Token); len(tok.blobs) != 1 || tok.SignedPCRs != 0 || tok.PCRLock {
		t.Errorf("with both turned off: %+v", tok)
	}
}

func TestCrypttabOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  func(*Handler)
		want string
	}{
		{func(h *Handler) {}, "tpm2-device=auto"},
		{func(h *Handler) { h.device = "auto" }, "tpm2-device=auto"},
		{func(h *Handler) { h.device = "/dev/tpmrm1" }, "tpm2-device=/dev/tpmrm1"},
		{func(h *Handler) { h.device = "swtpm:host=::1,port=5" }, "tpm2-device=auto"},
		{func(h *Handler) { h.latch = true }, "tpm2-device=auto tpm2-measure-pcr=yes"},
	} {
		h := &Handler{}
		c.set(h)
		s, err := h.settings(&tokens.EnrollRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(h.crypttab(s, nil), " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestPCRsOfSeveralOptionsAddUp(t *testing.T) {
	t.Parallel()
	var s chip.Selection
	set := setPCRs(&s)
	for _, text := range []string{"7", "11:sha256", "4"} {
		if err := set(text); err != nil {
			t.Fatal(err)
		}
	}
	if s.Set.String() != "4+7+11" || s.Bank != chip.BankSHA256 {
		t.Errorf("%s, %s", s.Set, s.Bank)
	}
	for _, text := range []string{"7", "0:sha1", "+", "8+8", "9+kernel-initrd"} {
		if err := set(text); err == nil {
			t.Errorf("%s is accepted on top of %s of bank %s", text, s.Set, s.Bank)
		}
	}
	if err := set(""); err != nil || s.Set != 0 || s.Bank != 0 {
		t.Errorf("an empty value leaves %s: %v", s.Set, err)
	}
}
