package tpm2

import (
	"encoding/binary"
	"errors"
	"net"
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
	key, lock := new(publicKeyPath), new("testdata/pcrlock.json")
	ref := "initrd"
	for name, c := range map[string]struct {
		set   func(*Handler)
		since int
	}{
		"PIN":        {func(h *Handler) { h.WithPIN = PINYes }, 251},
		"Argon2id":   {func(h *Handler) { h.WithPIN = PINArgon2id }, 262},
		"bank":       {func(h *Handler) { h.PCRs = mustPCRs(t, "7:sha1") }, 250},
		"signed":     {func(h *Handler) { h.PublicKey = key }, 252},
		"reference":  {func(h *Handler) { h.PublicKey, h.PublicKeyRef = key, &ref }, 262},
		"pcrlock":    {func(h *Handler) { h.PCRLock = lock }, 255},
		"both":       {func(h *Handler) { h.PublicKey, h.PCRLock = key, lock }, 257},
		"handle":     {func(h *Handler) { h.ParentHandle = 0x81000002 }, 255},
		"device key": {func(h *Handler) { h.DeviceKey = "testdata/srk.tpm2b_public" }, 255},
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
	key := new(publicKeyPath)
	empty := chip.PCRSet(0)
	ref := "x"
	for name, c := range map[string]struct {
		set  func(*Handler)
		want string
	}{
		"latch twice":            {func(h *Handler) { h.Latch, h.PCRs = true, mustPCRs(t, "15") }, "names too"},
		"cost without PIN":       {func(h *Handler) { h.Argon2id.Memory = 1 << 20 }, "need --tpm2-with-pin"},
		"cost of a direct PIN":   {func(h *Handler) { h.WithPIN, h.Argon2id.Memory = PINDirect, 1<<20 }, "this one is not"},
		"too little memory":      {func(h *Handler) { h.WithPIN, h.Argon2id.Memory = PINArgon2id, 1024 }, "--tpm2-argon2id"},
		"too much memory":        {func(h *Handler) { h.WithPIN, h.Argon2id.Memory = PINArgon2id, 1<<41 }, "memory"},
		"no such key":            {func(h *Handler) { h.PublicKey = new("/nonexistent") }, "no such file"},
		"key is not a PEM":       {func(h *Handler) { h.PublicKey = new("testdata/pcrlock.json") }, "is not a PEM"},
		"private key":            {func(h *Handler) { h.PublicKey = new("testdata/pcr-sign-key.pem") }, "want a public key"},
		"no signed PCR":          {func(h *Handler) { h.PublicKey, h.PublicKeyPCRs = key, &empty }, "is empty"},
		"reference without key":  {func(h *Handler) { h.PublicKeyRef = &ref }, "need a public key"},
		"no such signature":      {func(h *Handler) { h.PublicKey, h.Signature = key, new("/nonexistent") }, "no such file"},
		"signature is rubbish":   {func(h *Handler) { h.PublicKey, h.Signature = key, new(publicKeyPath) }, "is not a JSON object"},
		"pcrlock is rubbish":     {func(h *Handler) { h.PCRLock = new(publicKeyPath) }, "is not a JSON object"},
		"device key is rubbish":  {func(h *Handler) { h.DeviceKey = publicKeyPath }, "reading the storage key"},
		"offline without values": {func(h *Handler) { h.DeviceKey, h.PCRs = "testdata/srk.tpm2b_public", mustPCRs(t, "7") }, "a value for every PCR"},
		"both devices":           {func(h *Handler) { h.DeviceKey, h.Device = "testdata/srk.tpm2b_public", "auto" }, "exclude each other"},
		"offline shards": {func(h *Handler) {
			h.DeviceKey, h.PublicKey, h.PCRLock = "testdata/srk.tpm2b_public", key, new("testdata/pcrlock.json")
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
	h.PCRs, h.WithPIN, h.Latch = mustPCRs(t, "7:sha256"), PINYes, true
	if text, err := h.Plan(&tokens.EnrollRequest{Compat: 262}); err != nil || text != "TPM2, PCR 7+15 (sha256), PIN" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := handlerFor(t, "").Plan(&tokens.EnrollRequest{Compat: 262}); err != nil || text != "TPM2, TPM alone" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNotesWarn(t *testing.T) {
	t.Parallel()
	fresh, booted := testenv.StartTPM(t, testenv.TPMOptions{}), testenv.StartTPM(t, testenv.TPMOptions{})
	booted.Extend(7, "sha256", make([]byte, 32))
	for name, c := range map[string]struct {
		tpm  *testenv.TPM
		set  func(*Handler)
		want string
		not  string
	}{
		"nothing": {fresh, func(*Handler) {}, "Any system that is started on this machine", ""},
		"PCR 7":   {booted, func(h *Handler) { h.PCRs = mustPCRs(t, "7") }, "PCR 7 alone: any system that Secure Boot accepts", "Any system that is started"},
		"latch":   {fresh, func(h *Handler) { h.Latch = true }, "Any system that is started", ""},
		"PIN":     {fresh, func(h *Handler) { h.PCRs, h.WithPIN = mustPCRs(t, "7"), PINDirect }, "PCR 7 (sha256) is empty", "PCR 7 alone"},
		"kernel":  {fresh, func(h *Handler) { h.PCRs = mustPCRs(t, "4+9") }, "PCR 4 changes with an update of the boot loader or kernel, PCR 9 changes with an update of kernel or initrd: run cryptenroll follow before the reboot into it, or cryptenroll reseal after it.", ""},
		"no key":  {fresh, func(h *Handler) { h.Signature = new("/nosuch.json") }, "--tpm2-signature= has no effect without a public key", ""},
		"SHA-1":   {fresh, func(h *Handler) { h.PCRs = mustPCRs(t, "7:sha1") }, "Bank sha1 is weak", ""},
		"zero":    {fresh, func(h *Handler) { h.PCRs = mustPCRs(t, "7") }, "PCR 7 (sha256) is empty on this machine: it protects nothing.", ""},
	} {
		h := handlerFor(t, c.tpm.Device())
		c.set(h)
		var answers []string
		if h.WithPIN != PINNone {
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
		if name == "zero" && e.Notes[0] != c.want {
			t.Errorf("the weightiest does not come first: %q", e.Notes)
		}
	}
}

// TestKeysForOldSystemdAreWarnedAbout: they stay closed while the TPM is locked, and
// a PIN can be guessed with a fake TPM.
func TestKeysForOldSystemdAreWarnedAbout(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for mode, want := range map[PINMode]string{PINNone: "will not open while the TPM is locked", PINDirect: "a fake TPM can guess this PIN off line"} {
		h := handlerFor(t, swtpm.Device())
		h.WithPIN = mode
		var answers []string
		if mode != PINNone {
			answers = []string{"4711"}
		}
		for compat, warned := range map[int]bool{253: true, 254: false} {
			e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: compat}, answers...)
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(e.Notes, " "); strings.Contains(notes, want) != warned || warned && !strings.Contains(notes, "--compat=254 avoids that") {
				t.Errorf("for systemd %d: %q", compat, e.Notes)
			}
		}
	}
}

// TestPresentValuesOfLatePCRsAreRefused: the next boot will find others when the
// volume is unlocked.
func TestPresentValuesOfLatePCRsAreRefused(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("ab", 32)
	for pcrs, refused := range map[string]bool{"7+11": true, "12": true, "13": true, "15": true, "kernel-boot": true, "7+14": false,
		"11:sha256=" + digest: false, "11:sha256=" + digest + "+12": true} {
		h := handlerFor(t, "")
		h.PCRs = mustPCRs(t, pcrs)
		if _, err := h.Plan(&tokens.EnrollRequest{}); err != nil {
			t.Errorf("%s as they are: %v", pcrs, err)
		}
		h.PCRsAsTheyAre = false
		_, err := h.Plan(&tokens.EnrollRequest{})
		if errors.Is(err, tokens.ErrUsage) != refused || refused && !strings.Contains(err.Error(), "would not open in the next boot") {
			t.Errorf("%s: %v", pcrs, err)
		}
	}
	h := handlerFor(t, "")
	h.PCRsAsTheyAre, h.Latch = false, true
	if _, err := h.Plan(&tokens.EnrollRequest{}); err != nil {
		t.Errorf("the latch: %v", err)
	}
}

// TestNoTokenForABankThatTheTPMLacks: systemd writes one that never opens.
func TestNoTokenForABankThatTheTPMLacks(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	keepOnly(t, swtpm, chip.BankSHA384)
	for _, compat := range []int{250, 255, 262} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, "7")
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: compat})
		if err != nil {
			t.Fatalf("systemd %d: %v", compat, err)
		}
		if tok := tokenOf(t, e.Token); tok.Bank != chip.BankSHA384 {
			t.Errorf("systemd %d: bank %s", compat, tok.Bank)
		}
	}
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7")
	if _, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: 249}); !errors.Is(err, tokens.ErrUsage) || !hints(err, "--compat=250") {
		t.Errorf("systemd 249: %v", err)
	}
	h.PCRs = mustPCRs(t, "7:sha256")
	if _, err := tryEnroll(t, h, &tokens.EnrollRequest{}); !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "keeps no bank sha256; it has sha384") {
		t.Errorf("literal: %v", err)
	}
	if _, err := h.PresentPCRs(t.Context(), []int{4, 7}); err == nil || !strings.Contains(err.Error(), "keeps no bank sha256, whose values alone can be predicted; it has sha384") {
		t.Errorf("predicted: %v", err)
	}
	h = handlerFor(t, swtpm.Device())
	h.PublicKey = new(publicKeyPath)
	e, err := tryEnroll(t, h, &tokens.EnrollRequest{})
	if err != nil || tokenOf(t, e.Token).Bank != chip.BankSHA384 {
		t.Errorf("signed: %v", err)
	}
	for text, want := range map[string]string{"11:sha384": "", "11:sha256": "keeps no bank sha256; it has sha384"} {
		if err := h.setPublicKeyPCRs(text); err != nil {
			t.Fatal(err)
		}
		if _, err := tryEnroll(t, h, &tokens.EnrollRequest{}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("signed %s: %v", text, err)
		}
	}
}

// keepOnly allocates one bank of PCRs: TPM2_PCR_Allocate, which go-tpm lacks.
func keepOnly(t *testing.T, swtpm *testenv.TPM, keep chip.Bank) {
	t.Helper()
	conn, err := net.Dial("unix", swtpm.Socket())
	if err != nil {
		t.Fatal(err)
	}
	command := []byte{0x80, 2, 0, 0, 0, 0, 0, 0, 1, 0x2b, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 4}
	for _, b := range []chip.Bank{chip.BankSHA1, chip.BankSHA256, chip.BankSHA384, chip.BankSHA512} {
		bits := byte(0)
		if b == keep {
			bits = 0xff
		}
		command = append(binary.BigEndian.AppendUint16(command, uint16(b)), 3, bits, bits, bits)
	}
	binary.BigEndian.PutUint32(command[2:], uint32(len(command)))
	if _, err := conn.Write(command); err != nil {
		t.Fatal(err)
	}
	response, err := readMessage(conn)
	if err != nil || binary.BigEndian.Uint32(response[6:]) != 0 {
		t.Fatalf("TPM2_PCR_Allocate: %x, %v", response, err)
	}
	_ = conn.Close()
	swtpm.Reset()
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
	h.PublicKey, h.PCRLock = new(""), new("")
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
		{func(h *Handler) { h.Device = "auto" }, "tpm2-device=auto"},
		{func(h *Handler) { h.Device = "/dev/tpmrm1" }, "tpm2-device=/dev/tpmrm1"},
		{func(h *Handler) { h.Device = "swtpm:host=::1,port=5" }, "tpm2-device=auto"},
		{func(h *Handler) { h.Latch = true }, "tpm2-device=auto tpm2-measure-pcr=yes"},
	} {
		h := &Handler{}
		c.set(h)
		s, err := h.settings(&tokens.EnrollRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(h.newEnrollment(s, nil, nil).crypttab(), " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestPCRsOfSeveralOptionsAddUp(t *testing.T) {
	t.Parallel()
	var s *chip.Selection
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

// hints reports whether an error has a hint with a text.
func hints(err error, text string) bool {
	h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	return ok && strings.Contains(h.Hint(), text)
}
