package tpm2

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"luksmith/internal/testenv"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tokentest"
)

// withConn uses a TPM directly.
func withConn(t testing.TB, chip *testenv.TPM, use func(*conn)) {
	t.Helper()
	c, err := new(Handler).connect(t.Context(), chip.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	use(c)
}

// tryEnroll enrols on a volume that has tokens already.
func tryEnroll(t testing.TB, h *Handler, req *tokens.EnrollRequest, answers ...string) (*tokens.Enrollment, error) {
	t.Helper()
	if req.Compat == 0 {
		req.Compat = newestSystemd
	}
	e, err := h.Enroll(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	if e != nil {
		t.Cleanup(e.Passphrase.Wipe)
	}
	return e, err
}

func having(list ...luks2.Token) *tokens.EnrollRequest {
	return &tokens.EnrollRequest{Volume: tokens.Volume{Tokens: list}}
}

func TestEnrolMakesTheSRK(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	first := tokenOf(t, enrolled(t, handlerFor(t, chip.Device())).Token)
	chip.Mark()
	second := tokenOf(t, enrolled(t, handlerFor(t, chip.Device())).Token)
	if string(first.parent.public) != string(second.parent.public) || first.parent.handle != handleSRK {
		t.Error("the second enrolment has another parent")
	}
	if slices.Contains(namesOf(chip.Commands()), "CreatePrimary") {
		t.Error("the SRK is made again")
	}
	// Template L-2 of the TCG: what systemd-tpm2-setup makes.
	want := unhex(t, "0023000b00030472000000060080004300100003001000200000")
	if got := first.parent.public[:22]; string(got) != string(want[:22]) {
		t.Errorf("the SRK's public part begins with %x, want %x", got, want[:22])
	}
}

func TestEnrolSameAgainChangesNothing(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	h.pcrs = mustPCRs(t, "7+11")
	first := asToken(2, enrolled(t, h).Token)
	other := asToken(3, json.RawMessage(`{"type":"systemd-recovery","keyslots":["3"]}`))
	other.Type = "systemd-recovery"
	e, err := tryEnroll(t, h, having(other, first))
	if err != nil || e.Unchanged != 2 || e.Token != nil || e.Passphrase.Len() != 0 || len(e.Replaces) != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	// In another state the same options give another token, and the dead one goes.
	update(chip)
	e, err = tryEnroll(t, h, having(other, first))
	if err != nil || e.Unchanged != -1 || !slices.Equal(e.Replaces, []int{2}) {
		t.Fatalf("%+v, %v", e, err)
	}
	// Other options are another token, and the first stays.
	h.pcrs = mustPCRs(t, "7")
	if e, err = tryEnroll(t, h, having(other, first)); err != nil || e.Unchanged != -1 || len(e.Replaces) != 0 {
		t.Errorf("other PCRs: %+v, %v", e, err)
	}
}

func TestEnrolReplaces(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	h.pcrs = mustPCRs(t, "7")
	labelled := func(label string) luks2.Token {
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		return asToken(1, e.Token)
	}
	old := labelled("laptop")
	for name, c := range map[string]struct {
		label     string
		pcrs      string
		pin       pinMode
		compat    int
		unchanged int
		replaces  []int
	}{
		"same label and options":    {"laptop", "7", pinNone, 0, 1, nil},
		"no label, same options":    {"", "7", pinNone, 0, 1, nil},
		"same label, other options": {"laptop", "11", pinNone, 0, -1, []int{1}},
		"other label":               {"rollback", "7", pinNone, 0, -1, nil},
		"no label, other options":   {"", "11", pinNone, 0, -1, nil},
		"with PIN":                  {"", "7", pinDirect, 0, -1, nil},
		"for systemd 252":           {"", "7", pinNone, 252, -1, nil},
	} {
		h := handlerFor(t, chip.Device())
		h.pcrs, h.pinMode = mustPCRs(t, c.pcrs), c.pin
		req := having(old)
		req.Label, req.Compat = c.label, c.compat
		var answers []string
		if c.pin != pinNone {
			answers = []string{"4711"}
		}
		e, err := tryEnroll(t, h, req, answers...)
		if err != nil || e.Unchanged != c.unchanged || !slices.Equal(e.Replaces, c.replaces) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// TestEnrolReplacesTokenOfAClearedTPM: systemd says "already enrolled" and leaves
// the dead one.
func TestEnrolReplacesTokenOfAClearedTPM(t *testing.T) {
	old := enrolled(t, handlerFor(t, testenv.StartTPM(t, testenv.TPMOptions{}).Device()))
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	e, err := tryEnroll(t, handlerFor(t, chip.Device()), having(asToken(0, old.Token)))
	if err != nil || !slices.Equal(e.Replaces, []int{0}) || e.Unchanged != -1 {
		t.Fatalf("%+v, %v", e, err)
	}
	if !strings.Contains(strings.Join(e.Notes, "\n"), "Token 0 was sealed by another TPM") {
		t.Errorf("notes %q", e.Notes)
	}
	if _, err := unlockToken(t, handlerFor(t, chip.Device()), asToken(0, old.Token)); !errors.Is(err, tokens.ErrOtherDevice) {
		t.Errorf("unlocking the dead one: %v, want ErrOtherDevice", err)
	}
}

// TestEnrolForOldSystemd looks at the form of the token.
func TestEnrolForOldSystemd(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	for compat := 248; compat <= 262; compat++ {
		h := handlerFor(t, chip.Device())
		h.pcrs = mustPCRs(t, "7")
		e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: compat})
		if err != nil {
			t.Fatalf("%d: %v", compat, err)
		}
		m, err := tokens.Members(e.Token)
		if err != nil {
			t.Fatal(err)
		}
		for member, want := range map[string]bool{
			memberBank: compat >= 250, memberPrimaryAlg: compat >= 250, memberPIN: compat >= 251 && compat < 256, memberSRK: compat >= 254,
			memberPCRLock: compat == 255, memberSalt: false, memberPubkey: false,
		} {
			if _, has := m[member]; has != want {
				t.Errorf("%d: member %s is there: %v", compat, member, has)
			}
		}
		if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
			t.Errorf("%d: %v", compat, err)
		}
	}
}

func TestPlanRefusesWhatOldSystemdDoesNotKnow(t *testing.T) {
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
	key := pathOption{true, publicKeyPath}
	empty := pcrSet(0)
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
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
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
		h := handlerFor(t, chip.Device())
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
	chip := fixtureTPM(t)
	h := handlerFor(t, chip.Device())
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
	if len(tok.blobs) != 2 || tok.signedPCRs != pcrSetOf(11) || !tok.pcrlock {
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
	if tok := tokenOf(t, enrolled(t, h).Token); len(tok.blobs) != 1 || tok.signedPCRs != 0 || tok.pcrlock {
		t.Errorf("with both turned off: %+v", tok)
	}
}

func TestCrypttabOptions(t *testing.T) {
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
		if got := strings.Join(h.crypttab(s), " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// persist puts a primary key at a handle.
func persist(t testing.TB, c *conn, template tpm2.TPMTPublic, handle tpm2.TPMHandle) error {
	t.Helper()
	rsp, err := run(c, "TPM2_CreatePrimary", tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(template),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.flush(rsp.ObjectHandle)
	_, err = run(c, "TPM2_EvictControl", tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
		PersistentHandle: handle,
	})
	return err
}

func TestForeignParent(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, chip, func(c *conn) {
		if err := persist(t, c, storageTemplate("rsa", true), 0x81000002); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, chip.Device())
	h.parentHandle, h.pinMode = 0x81000002, pinDirect
	e := enrolled(t, h, "4711")
	if tok := tokenOf(t, e.Token); tok.parent.handle != 0x81000002 || tok.primaryAlg != "rsa" {
		t.Errorf("%+v", tok.parent)
	}
	if _, err := unlockToken(t, handlerFor(t, chip.Device()), asToken(0, e.Token), "4711"); err != nil {
		t.Error(err)
	}
	h.parentHandle = 0x81000003
	if _, err := tryEnroll(t, h, having()); !errors.Is(err, tokens.ErrUsage) || !strings.Contains(err.Error(), "no key at handle 0x81000003") {
		t.Errorf("a handle without key: %v", err)
	}
}

func TestSRKHandleOccupied(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	signing := storageTemplate("ecc", true)
	signing.ObjectAttributes.Decrypt, signing.ObjectAttributes.SignEncrypt = false, true
	signing.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: tpm2.TPMTECCScheme{
		Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}})
	withConn(t, chip, func(c *conn) {
		if err := persist(t, c, signing, handleSRK); err != nil {
			t.Fatal(err)
		}
	})
	_, err := tryEnroll(t, handlerFor(t, chip.Device()), having())
	if err == nil || !strings.Contains(err.Error(), "0x81000001 is not a storage key") || !strings.Contains(err.Error(), "--tpm2-seal-key-handle=") {
		t.Errorf("%v", err)
	}
}

// TestRSAStorageRootKey is used as it is, as on machines where other systems made
// it.
func TestRSAStorageRootKey(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, chip, func(c *conn) {
		if err := persist(t, c, storageTemplate("rsa", true), handleSRK); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, chip.Device())
	e := enrolled(t, h)
	if tok := tokenOf(t, e.Token); tok.primaryAlg != "rsa" {
		t.Errorf("primary-alg is %s", tok.primaryAlg)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
}

func TestFullTPM(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, chip, func(c *conn) {
		for i := range 100 {
			if err := persist(t, c, storageTemplate("ecc", true), handleSRK+0x100+tpm2.TPMHandle(i)); err != nil {
				return
			}
		}
		t.Fatal("a hundred keys did not fill the TPM")
	})
	chip.Mark()
	_, err := tryEnroll(t, handlerFor(t, chip.Device()), having())
	if err == nil || !strings.Contains(err.Error(), "no room for another persistent key") {
		t.Errorf("%v", err)
	}
	checkNothingLoaded(t, chip)
}

// checkNothingLoaded counts the handles of objects and sessions in the TPM.
func checkNothingLoaded(t testing.TB, chip *testenv.TPM) {
	t.Helper()
	withConn(t, chip, func(c *conn) {
		for _, kind := range []uint32{0x80000000, 0x02000000, 0x03000000} { // transient, loaded and saved sessions
			rsp, err := run(c, "TPM2_GetCapability", tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: kind, PropertyCount: 10})
			if err != nil {
				t.Fatal(err)
			}
			if list, err := rsp.CapabilityData.Data.Handles(); err != nil || len(list.Handle) != 0 {
				t.Errorf("left in the TPM: %x, %v", list, err)
			}
		}
	})
}

func TestOwnerPassword(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	withConn(t, chip, func(c *conn) {
		_, err := run(c, "TPM2_HierarchyChangeAuth", tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("owner")},
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	for compat, answers := range map[int][]string{252: nil, 262: nil} {
		req := having()
		req.Compat = compat
		_, err := tryEnroll(t, handlerFor(t, chip.Device()), req, answers...)
		hinted, ok := errors.AsType[interface {
			error
			Hint() string
		}](err)
		if err == nil || !strings.Contains(err.Error(), "owner hierarchy of the TPM has a password") || !ok || !strings.Contains(hinted.Hint(), "tpm2_changeauth") {
			t.Errorf("for systemd %d: %v", compat, err)
		}
	}
	checkNothingLoaded(t, chip)
}

func TestAllSlotsTaken(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	tok := asToken(0, enrolled(t, h).Token)
	other, err := h.connect(t.Context(), chip.Device())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := run(other, "TPM2_StartAuthSession", tpm2.StartAuthSession{TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, SessionType: tpm2.TPMSEPolicy,
			NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)}, AuthHash: tpm2.TPMAlgSHA256, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}}); err != nil {
			t.Fatal(err)
		}
	}
	_ = other.link.Close() // without flushing, as a program that crashed
	_, err = unlockToken(t, h, tok)
	hinted, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !errors.Is(err, tokens.ErrBusy) || !strings.Contains(err.Error(), "0x903") || !ok || !strings.Contains(hinted.Hint(), "/dev/tpmrm0") {
		t.Errorf("%v, want ErrBusy with an explanation of 0x903", err)
	}
}

// TestEveryRunFlushes looks into the TPM after success and after every failure.
func TestEveryRunFlushes(t *testing.T) {
	chip := fixtureTPM(t)
	for _, f := range fixtures(t) {
		h := handlerFor(t, chip.Device())
		h.signature, h.pcrlock = pathOption{true, "testdata/tpm2-pcr-signature.json"}, pathOption{true, "testdata/pcrlock.json"}
		if _, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		checkNothingLoaded(t, chip)
	}
	for _, i := range []int{7, 11} {
		chip.Extend(i, "sha256", make([]byte, 32))
	}
	for _, f := range fixtures(t) {
		h := handlerFor(t, chip.Device())
		h.signature, h.pcrlock = pathOption{true, "testdata/tpm2-pcr-signature.json"}, pathOption{true, "testdata/pcrlock.json"}
		_, err := unlockToken(t, h, asToken(0, f.Token), pinAnswers(f)...)
		if bound := !strings.Contains(f.name, "nopcr") && !strings.Contains(f.name, "pcrlock"); (err != nil) != bound {
			t.Errorf("%s with other PCRs: %v", f.name, err)
		}
		checkNothingLoaded(t, chip)
	}
}

func TestOffline(t *testing.T) {
	chip := fixtureTPM(t)
	zero := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		pcrs string
		pin  pinMode
	}{"PCR": {"7:sha256=" + zero, pinNone}, "nothing": {"", pinNone}, "PIN": {"", pinDirect}, "Argon2id": {"7:sha256=" + zero, pinArgon2id}} {
		t.Run(name, func(t *testing.T) {
			h := handlerFor(t, "")
			h.deviceKey, h.pcrs, h.pinMode = "testdata/srk.tpm2b_public", mustPCRs(t, c.pcrs), c.pin
			if c.pin == pinArgon2id {
				h.argon = argonOptions{memory: 8 << 20, iterations: 1}
			}
			var answers []string
			if c.pin != pinNone {
				answers = []string{"4711"}
			}
			e, err := tryEnroll(t, h, having(), answers...)
			if err != nil {
				t.Fatal(err)
			}
			tok := tokenOf(t, e.Token)
			if !tok.offline() || !strings.Contains(strings.Join(e.Notes, "\n"), "without the TPM") {
				t.Errorf("offline %v, notes %q", tok.offline(), e.Notes)
			}
			got, err := unlockToken(t, handlerFor(t, chip.Device()), asToken(0, e.Token), answers...)
			if err != nil || !got.Passphrase.Equal(e.Passphrase) {
				t.Errorf("on the machine: %v", err)
			}
		})
	}
}

// TestOfflineForRSA seals for an RSA storage key.
func TestOfflineForRSA(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	path := filepath.Join(t.TempDir(), "srk")
	withConn(t, chip, func(c *conn) {
		if err := persist(t, c, storageTemplate("rsa", true), handleSRK); err != nil {
			t.Fatal(err)
		}
		public, err := c.readPublic(handleSRK)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append2B(nil, public), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	h := handlerFor(t, "")
	h.deviceKey = path
	e, err := tryEnroll(t, h, having())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unlockToken(t, handlerFor(t, chip.Device()), asToken(0, e.Token)); err != nil {
		t.Error(err)
	}
}

// TestSystemd257OpensWhatWasSealedOffline is the other side of the fixture.
func TestSystemd257OpensWhatWasSealedOffline(t *testing.T) {
	p := systemd257(t)
	chip := testenv.StartTPM(t, testenv.TPMOptions{State: "testdata", TCP: true})
	h := handlerFor(t, "")
	h.deviceKey, h.pcrs = "testdata/srk.tpm2b_public", mustPCRs(t, "7:sha256="+strings.Repeat("00", 32))
	e, err := tryEnroll(t, h, &tokens.EnrollRequest{Compat: 257})
	if err != nil {
		t.Fatal(err)
	}
	image := p.volume(t)
	put(t, p, image, e)
	if err := p.opens(t, chip, image, ""); err != nil {
		t.Error(err)
	}
}

// TestExplicitValuesOfAnotherState are enrolled for the next boot, unproven.
func TestExplicitValuesOfAnotherState(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	h.pcrs = mustPCRs(t, "7+11:sha256="+fmt.Sprintf("%064d", 1))
	e := enrolled(t, h)
	if !strings.Contains(strings.Join(e.Notes, "\n"), "could not be tested") {
		t.Errorf("notes %q", e.Notes)
	}
	again, err := tryEnroll(t, h, having(asToken(0, e.Token)))
	if err != nil || again.Unchanged != 0 {
		t.Errorf("the same again: %+v, %v", again, err)
	}
}

func TestDeviceTable(t *testing.T) {
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, chip.Device())
	h.pinMode = pinDirect
	tok := asToken(0, enrolled(t, h, "4711").Token)
	row := func() []string {
		t.Helper()
		table, err := h.Devices(t.Context())
		if err != nil || len(table.Rows) != 1 {
			t.Fatalf("%+v, %v", table, err)
		}
		return table.Rows[0]
	}
	if got := row(); got[0] != chip.Device() || got[1] != "IBM SW   TPM" && got[1] != "IBM SW TPM" || got[3] != "sha256 sha384 sha512 sha1" || got[4] != "0 of 3" || got[5] != "-" {
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

func TestAutoDevice(t *testing.T) {
	h := handlerFor(t, "auto")
	if _, err := h.connect(t.Context(), "auto"); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("none: %v", err)
	}
	for _, name := range []string{"tpmrm0", "tpmrm1"} {
		if err := os.MkdirAll(filepath.Join(h.Paths.sysTPM(), name), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := h.onlyDevice()
		if name == "tpmrm0" && (err != nil || path != h.Paths.join("/dev/tpmrm0")) {
			t.Errorf("one: %s, %v", path, err)
		}
		if name == "tpmrm1" && (!errors.Is(err, tokens.ErrSeveralDevices) || !strings.Contains(err.Error(), "tpmrm0, ")) {
			t.Errorf("two: %s, %v", path, err)
		}
	}
	for device, ok := range map[string]bool{"auto": true, "/dev/tpm0": true, "device:/dev/tpm0": true, "swtpm": true, "swtpm:port=5": true, "swtpm:host=::1,port=5": true,
		"swtpm:path=/run/s": true, "tpm0": false, "swtpm:port=0": false, "swtpm:port=x": false, "swtpm:path=s": false, "swtpm:foo=1": false, "list": false, "mssim": false} {
		if err := checkDevice(device); (err == nil) != ok {
			t.Errorf("%s: %v", device, err)
		}
	}
	if _, err := h.connect(t.Context(), "/etc/passwd"); !errors.Is(err, tokens.ErrNoDevice) {
		t.Errorf("a regular file: %v", err)
	}
}
