package tokens

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// lock is a token type whose tokens demand what their "demand" member says.
type lock struct{ toy }

func (l lock) Conditions(t luks2.Token) ([]Condition, error) {
	m, err := Members(t.Raw)
	if err != nil {
		return nil, err
	}
	var demand string
	err = NeedMember(m, "demand", &demand)
	return []Condition{{"demand", demand}}, err
}

var locks = Set{lock{toy{"lock", "systemd-lock"}}, toy{"toy", "systemd-toy"}}

// TestConditionsVector is the vector of docs/formats.md.
func TestConditionsVector(t *testing.T) {
	t.Parallel()
	salt := bytes.Repeat([]byte{0xcc}, 32)
	text := canonical([]Condition{{"type", "systemd-fido2"}, {"credential", strings.Repeat("\x11", 16)}, {"rp", "io.systemd.cryptsetup"},
		{"pin", "yes"}, {"up", "yes"}, {"uv", "no"}, {"salt", string(salt)}})
	if got := hex.EncodeToString(text); !strings.HasPrefix(got, "00000004747970650000000d73797374656d642d6669646f320000000a63726564656e7469616c00000010") || len(text) != 173 {
		t.Errorf("%d bytes: %s", len(text), got)
	}
	fingerprint, _ := hex.DecodeString("f56d9abeac6b5819d577c89ac7ed37a470740f92ae49b8793b07aad74dd9436e")
	key, _ := hex.DecodeString("b742233936aa8a07d8287c39c19cbf8d1e6b42b8dd05860889aee274adc75ee7")
	hash, mac := sha256.Sum256(text), hmac.New(sha256.New, key)
	mac.Write(text)
	member := append(macFor(luks2.KeyFingerprint(fingerprint), &luks2.Keyslot{KDF: luks2.KDF{Salt: salt}}), hash[:macHashSize]...)
	member = mac.Sum(member)
	if got := base64.StdEncoding.EncodeToString(member); got != "LfoNEOqM/CryoI8rG9RmDIybvRST+8Y7ZVy73HbkDYu9j3693NjNK6lsMwPGGfVC0SOPGk/+awI8qHTextfwrg==" {
		t.Error(got)
	}
}

// withKey has a volume with one lock, authenticated, and its volume key.
func withKey(t *testing.T) (*luks2test.Volume, *luks2.VolumeKey) {
	t.Helper()
	v := luks2test.New(t)
	pass := secret.Copy([]byte("second"))
	defer pass.Wipe()
	vk, err := v.Device.OpenKeyslot(t.Context(), 0, secretOf(t, luks2test.Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vk.Wipe)
	err = v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		slot, err := tx.AddKeyslot(vk, pass, luks2.MinimalKDF)
		if err != nil {
			return err
		}
		k, _ := tx.Header().Keyslot(slot)
		raw, err := locks.Authenticate(json.RawMessage(`{"type":"systemd-lock","keyslots":[],"demand":"PIN"}`), k, vk)
		if err != nil {
			return err
		}
		_, err = tx.AddToken(luks2.Token{Keyslots: []int{slot}, Raw: raw})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v, vk
}

func secretOf(t *testing.T, text string) secret.Secret {
	t.Helper()
	s := secret.Copy([]byte(text))
	t.Cleanup(s.Wipe)
	return s
}

// TestEditedConditionsAreNoticed: whoever can write the disk takes a demand away.
func TestEditedConditionsAreNoticed(t *testing.T) {
	t.Parallel()
	v, vk := withKey(t)
	h := header(t, v)
	tok := h.Tokens[0]
	var full struct {
		Extra struct {
			MAC []byte `json:"mac"`
		} `json:"luksmith"`
	}
	if err := json.Unmarshal(tok.Raw, &full); err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(full.Extra.MAC)
	flip := func(i int) string {
		b := bytes.Clone(full.Extra.MAC)
		b[i] ^= 1
		return base64.StdEncoding.EncodeToString(b)
	}
	for name, c := range map[string]struct {
		old, new string
		want     Standing
		looks    bool
	}{
		"as enrolled":                        {"", "", Authentic, false},
		"labelled":                           {`"luksmith":{`, `"luksmith":{"label":"x",`, Authentic, false},
		"edited":                             {`"PIN"`, `""`, Altered, true},
		"demand gone":                        {`"demand":"PIN",`, ``, Altered, true},
		"MAC gone":                           {`"mac":"` + text + `"`, ``, Unauthenticated, false},
		"MAC of wrong type":                  {`"` + text + `"`, `7`, Unauthenticated, false},
		"MAC cut short":                      {text, text[:80], Unauthenticated, false},
		"for another key":                    {text, flip(0), Unauthenticated, false},
		"with a forged hash":                 {text, flip(macForSize), Authentic, true},
		"with a forged MAC":                  {text, flip(macSize - 1), Altered, false},
		"of a type that knows no conditions": {"systemd-lock", "systemd-toy", Unauthenticated, false},
	} {
		changed := tok
		changed.Raw = json.RawMessage(strings.Replace(string(tok.Raw), c.old, c.new, 1))
		if c.old != "" && string(changed.Raw) == string(tok.Raw) {
			t.Fatalf("%s: nothing was changed in %s", name, tok.Raw)
		}
		if strings.Contains(string(changed.Raw), "systemd-toy") {
			changed.Type = "systemd-toy"
		}
		if got := locks.Standing(h, changed, vk); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := locks.LooksAltered(h, changed); got != c.looks {
			t.Errorf("%s: looks altered %t", name, got)
		}
	}
}

// TestConditionsOfAnotherKeyslotAreUnauthenticated: cryptsetup makes keyslots anew,
// and a token may be moved to one; neither looks like an attack.
func TestConditionsOfAnotherKeyslotAreUnauthenticated(t *testing.T) {
	t.Parallel()
	v, vk := withKey(t)
	h := header(t, v)
	tok := h.Tokens[0]
	for _, slots := range [][]int{{0}, {}, {0, 1}, {7}} {
		tok.Keyslots = slots
		if got := locks.Standing(h, tok, vk); got != Unauthenticated || locks.LooksAltered(h, tok) {
			t.Errorf("on keyslots %v: %v", slots, got)
		}
	}
}

// TestCryptsetupsOwnWorkIsNoAttack: what cryptsetup makes of a volume with a token is
// unauthenticated at worst.
func TestCryptsetupsOwnWorkIsNoAttack(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	cheap := []string{"-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	for name, c := range map[string]struct {
		args []string
		want Standing
	}{
		"luksChangeKey of its keyslot": {append([]string{"luksChangeKey", "--key-slot", "1"}, cheap...), Unauthenticated},
		"reencrypt":                    {append([]string{"reencrypt", "--key-slot", "1", "--force-offline-reencrypt"}, cheap...), Unauthenticated},
		"luksUUID":                     {[]string{"luksUUID", "-q", "--uuid", "12345678-1234-4234-8234-123456789abc"}, Unauthenticated},
		"luksConvertKey":               {append([]string{"luksConvertKey", "--key-slot", "1"}, cheap...), Unauthenticated},
		"config":                       {[]string{"config", "--label", "disk"}, Authentic},
		"luksKillSlot of another":      {[]string{"luksKillSlot", "-q", "--key-slot", "0"}, Authentic},
	} {
		if name == "reencrypt" && os.Geteuid() != 0 {
			continue // cryptsetup locks it in a folder of root's
		}
		v, _ := withKey(t)
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte("second"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := append(c.args, "--key-file", file, v.Path)
		switch c.args[0] {
		case "luksChangeKey":
			args = append(args, file)
		case "luksKillSlot":
			args = []string{"luksKillSlot", "-q", v.Path, "0"}
		case "config", "luksUUID":
			args = append(c.args, v.Path)
		}
		if out, err := exec.Command("cryptsetup", args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		d, err := luks2.Open(v.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		h, err := d.Header(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Tokens) != 1 || len(h.Tokens[0].Keyslots) != 1 {
			t.Logf("%s: the token is gone", name)
			continue
		}
		vk, err := d.OpenKeyslot(t.Context(), h.Tokens[0].Keyslots[0], secretOf(t, "second"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := locks.Standing(h, h.Tokens[0], vk); got != c.want || locks.LooksAltered(h, h.Tokens[0]) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		vk.Wipe()
	}
	v, _ := withKey(t)
	if out, err := exec.Command("cryptsetup", "convert", "-q", "--type", "luks1", v.Path).CombinedOutput(); err == nil {
		t.Errorf("cryptsetup converts a volume with tokens: %s", out)
	}
}
