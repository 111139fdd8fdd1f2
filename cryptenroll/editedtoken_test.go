package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// edit is one change of a token that needs no key, and of the header around it.
type edit struct {
	name   string
	make   func(m map[string]json.RawMessage)
	header func(metadata map[string]any) // nil for none
}

// set replaces a member by a value; nil takes the member away.
func set(name string, value json.RawMessage) func(m map[string]json.RawMessage) {
	return func(m map[string]json.RawMessage) {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
}

// everyEdit goes through all members of a token: each is taken away, and each gets
// other values of its kind. The members of our own member are members, too. What is
// added are members that a token of the type can have and this one has not.
func everyEdit(t testing.TB, token map[string]json.RawMessage, added map[string]string) (list []edit) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(token)) {
		if name == "type" || name == "keyslots" {
			continue
		}
		list = append(list, edit{"no " + name, set(name, nil), nil})
		for i, value := range others(t, token[name]) {
			list = append(list, edit{fmt.Sprintf("%s, %d", name, i), set(name, value), nil})
		}
		var inner map[string]json.RawMessage
		if json.Unmarshal(token[name], &inner) != nil {
			continue
		}
		for _, e := range everyEdit(t, inner, nil) {
			list = append(list, edit{name + ": " + e.name, func(m map[string]json.RawMessage) {
				changed := maps.Clone(inner)
				e.make(changed)
				m[name] = marshal(t, changed)
			}, nil})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(added)) {
		if _, there := token[name]; !there {
			list = append(list, edit{name + " added", set(name, json.RawMessage(added[name])), nil})
		}
	}
	return list
}

func marshal(t testing.TB, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// others are values of the same kind as a member's.
func others(t testing.TB, value json.RawMessage) []json.RawMessage {
	t.Helper()
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case bool:
		return []json.RawMessage{marshal(t, !v)}
	case float64:
		return []json.RawMessage{marshal(t, v+1), marshal(t, v/2), json.RawMessage("0")}
	case string:
		return []json.RawMessage{json.RawMessage(`""`), marshal(t, turned(v, len(v)/2)), marshal(t, turned(v, len(v)-5))}
	case []any:
		longer := append(slices.Clone(v), float64(16))
		if len(v) > 0 {
			if text, ok := v[0].(string); ok {
				longer = append(slices.Clone(v), text)
			}
		}
		return []json.RawMessage{json.RawMessage("[]"), marshal(t, longer), json.RawMessage("[16]")}
	}
	return nil
}

// turned exchanges one letter for another, so that hexadecimal and base64 text stay
// what they are.
func turned(text string, at int) string {
	if at = max(at, 0); at >= len(text) {
		return text + "a"
	}
	other := byte('a')
	if text[at] == other {
		other = 'b'
	}
	return text[:at] + string(other) + text[at+1:]
}

// exported are the tokens of a type with some of their members, as cryptsetup has them.
func exported(t testing.TB, volume, tokenType string, members []string) (list []map[string]json.RawMessage) {
	t.Helper()
	var header struct {
		Tokens map[string]map[string]json.RawMessage `json:"tokens"`
	}
	if err := json.Unmarshal(cryptsetup(t, "luksDump", "--dump-json-metadata", volume), &header); err != nil {
		t.Fatal(err)
	}
	for _, token := range header.Tokens {
		if string(token["type"]) != `"`+tokenType+`"` {
			continue
		}
		if members != nil {
			maps.DeleteFunc(token, func(name string, _ json.RawMessage) bool { return !slices.Contains(members, name) })
		}
		list = append(list, token)
	}
	return list
}

// victim is a volume with one token, and calls that make a key from that.
type victim struct {
	volume, tokenType string
	env               []string
	calls             [][]string
	// conditions are the members that say what a key demands and that a renewal keeps.
	conditions []string
	added      map[string]string
}

// bothHeaders are the two copies of the header of a small volume.
func bothHeaders(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 32<<10)
	if _, err := io.ReadFull(f, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// plant is a copy of the volume whose token somebody edited with cryptsetup; where the
// plug-in for the type refuses to import that, the disk is written to.
func (v *victim) plant(t testing.TB, e edit) (path string, before []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "volume.img")
	testenv.Run(t, "cp", "--sparse=always", v.volume, path)
	token := exported(t, path, v.tokenType, nil)[0]
	e.make(token)
	file := filepath.Join(t.TempDir(), "token.json")
	if err := os.WriteFile(file, marshal(t, token), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "token", "remove", "--token-id", "0", path)
	if exec.Command("cryptsetup", "token", "import", "--token-id", "0", "--json-file", file, path).Run() != nil {
		d, err := luks2.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = d.Update(t.Context(), func(tx *luks2.Tx) error {
			_, err := tx.AddToken(luks2.Token{Keyslots: []int{1}, Raw: marshal(t, token)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if e.header != nil {
		luks2test.Edit(t, path, e.header)
	}
	return path, bothHeaders(t, path)
}

// renewed runs a call on a copy whose token was edited. It must not write, or what it
// writes demands what the token demanded that was enrolled.
func (v *victim) renewed(t *testing.T, call []string, e edit) (wrote bool) {
	t.Helper()
	path, before := v.plant(t, e)
	planted := tokensAsText(t, path, nil)
	r := runCommand(t, alone(t, v.env, append(slices.Clone(call), path)...))
	wrote = !bytes.Equal(before, bothHeaders(t, path))
	if wrote != (r.status == 0) && !strings.Contains(r.stderr, "nothing was written") && !strings.Contains(r.stderr, "Upgraded keyslot 1") {
		t.Errorf("%s: %q: exit status %d, header changed: %t\n%s", e.name, call, r.status, wrote, r.stderr)
	}
	if !wrote {
		return false
	}
	want, all := tokensAsText(t, v.volume, v.conditions)[0], tokensAsText(t, path, nil)
	for i, got := range tokensAsText(t, path, v.conditions) {
		if got != want && !slices.Contains(planted, all[i]) {
			t.Errorf("%s: %q: exit status %d, made a key with\n%s\nwant\n%s\n%s", e.name, call, r.status, got, want, r.stderr)
		}
	}
	return true
}

// tokensAsText are the tokens of a volume by number, all types, with some of their
// members. It need not be one that cryptsetup takes.
func tokensAsText(t testing.TB, path string, members []string) (list []string) {
	t.Helper()
	d, err := luks2.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	h, err := d.Header(t.Context())
	if err != nil {
		return nil
	}
	for _, token := range h.Tokens {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(token.Raw, &m); err != nil {
			t.Fatal(err)
		}
		if members != nil {
			maps.DeleteFunc(m, func(name string, _ json.RawMessage) bool { return !slices.Contains(members, name) })
		}
		list = append(list, string(marshal(t, m)))
	}
	return list
}

// told runs a call at a terminal, for an edit after which it does not go on by
// itself: the person reads why, or is asked, and says no.
func (v *victim) told(t *testing.T, call []string, e edit) {
	t.Helper()
	path, before := v.plant(t, e)
	p := sitWith(t, v.env, append(slices.Clone(call), path)...)
	p.sees(`refused: |Nothing proves that |error: `)
	p.types("n\r")
	if err := p.cmd.Wait(); err == nil || !bytes.Equal(before, bothHeaders(t, path)) {
		t.Errorf("%s: %q at a terminal: %v, header changed: %t\n%s", e.name, call, err, !bytes.Equal(before, bothHeaders(t, path)), p.text())
	}
}

// everyMember tries every edit: with every call, with the MAC and without, by make e2e;
// every second with one call in turn, and one in four without the MAC, by make test.
func (v *victim) everyMember(t *testing.T) {
	token := exported(t, v.volume, v.tokenType, nil)[0]
	list := everyEdit(t, token, v.added)
	if len(list) < 2*len(token) {
		t.Fatalf("%d edits of %d members", len(list), len(token))
	}
	list = append(list, v.around()...)
	for i, e := range list {
		bare := edit{e.name + ", without MAC", func(m map[string]json.RawMessage) { e.make(m); withoutMAC(m) }, e.header}
		wrote := false
		for k, call := range v.calls {
			if testenv.EndToEnd() || (i+k+1)%(2*len(v.calls)) == 0 {
				wrote = v.renewed(t, call, e)
			}
		}
		call := v.calls[i%len(v.calls)]
		if (testenv.EndToEnd() || i%4 == 0) && v.renewed(t, call, bare) {
			t.Errorf("%s: %q writes unattended", bare.name, call)
		}
		if i%14 == 0 && !wrote { // a terminal takes long
			v.told(t, v.calls[len(v.calls)-1], e)
			v.told(t, v.calls[len(v.calls)-1], bare)
		}
	}
}

var tpm2Conditions = []string{"tpm2-pcrs", "tpm2-pcr-bank", "tpm2-pin", "tpm2_pubkey_pcrs", "tpm2_pubkey", "tpm2_pubkey_ref", "tpm2_srk", "tpm2_pcrlock",
	"tpm2_argon2id_memcost", "tpm2_argon2id_iterations", "tpm2_argon2id_lanes"}

var tpm2Added = map[string]string{"tpm2-pin": "true", "tpm2_pcrlock": "true", "tpm2_pubkey_ref": `"boot"`, "tpm2_pcrlock_nv": `"AAAA"`,
	"tpm2_pubkey_pcrs": "[11]", "tpm2_pubkey": `"` + strangersKey + `"`, "tpm2_argon2id_memcost": "8192", "tpm2_new": "true"}

// TestEveryMemberOfATPM2Token: whoever can write the disk edits it, and nothing that
// renews the token makes a key with other conditions of that.
func TestEveryMemberOfATPM2Token(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm", "cryptsetup")
	chip, dir := testenv.StartTPM(t, testenv.TPMOptions{}), t.TempDir()
	signature := filepath.Join(dir, "sig.json")
	if err := (&devices{t: t}).sign(signature, 11, extended(nil)); err != nil {
		t.Fatal(err)
	}
	enroll := func(args ...string) string {
		v := luks2test.New(t)
		must(t, append(args, "--tpm2-device="+chip.Device(), "--label=laptop", v.Path)...)
		return v.Path
	}
	volumes := map[string]string{
		"PCR and PIN": enroll("--tpm2-pcrs=7:sha256", "--tpm2-with-pin=yes", "--compat=257"),
		"signed":      enroll("--tpm2-pcrs=7", "--tpm2-public-key="+signature+".pem", "--tpm2-signature="+signature, "--tpm2-with-pin=direct", "--compat=257"),
		"Argon2id":    enroll("--tpm2-pcrs=7", "--tpm2-with-pin=argon2id", "--tpm2-argon2id-memory=8M", "--tpm2-argon2id-iterations=1", "--compat=262"),
	}
	chip.Extend(7, "sha256", make([]byte, 32)) // now all of them want to be re-sealed
	for name, volume := range volumes {
		t.Run(name, func(t *testing.T) {
			more := []string{"--tpm2-device=" + chip.Device(), "--tpm2-signature=" + signature}
			v := &victim{volume: volume, tokenType: "systemd-tpm2", env: bothPINs, conditions: tpm2Conditions, added: tpm2Added,
				calls: [][]string{append([]string{"reseal", "--if-needed", "--yes"}, more...), append([]string{"--tpm2-change-pin"}, more...)}}
			v.everyMember(t)
		})
	}
}

// TestEveryMemberOfAPKCS11Token is the same for the other renewal.
func TestEveryMemberOfAPKCS11Token(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup", "softhsm2-util")
	_, env := newDesk(t)
	v := luks2test.New(t)
	enrollDesk(t, env, v.Path, "rsa")
	everyone := &victim{volume: v.Path, tokenType: "systemd-pkcs11", env: append(slices.Clone(env), "PASSWORD=hunter2", "PIN="+desk.PIN),
		conditions: []string{"pkcs11-uri"}, added: map[string]string{"pkcs11-padding": `"oaep-sha1"`, "pkcs11-new": "true"},
		calls: [][]string{{"pkcs11-upgrade", "--compat=262"}}}
	everyone.everyMember(t)
}
