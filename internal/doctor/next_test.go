package doctor

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/forecast"
	"luksmith/internal/test/boottest"
	"luksmith/luks2"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/chip"
)

// next4 gives keyslot 2 a token for the values of one real boot, has the machine be in
// that boot, and puts the files of another one in place. changed are variables of the
// firmware that differ from the log: "dbx" as before the other boot.
func (p *Patient) next4(t *testing.T, chain, was, is, pcrs string, changed ...string) {
	t.Helper()
	boots := boottest.Load(t, "../../tokens/tpm2/bootchain/testdata", chain)
	from, to := boots[was], boots[is]
	if slices.Contains(changed, "old shim") { // of a version that nobody measured
		changed = nil
		from.Edit = func(text string) string { return strings.ReplaceAll(text, "shim,16.1", "shim,15.8") }
		to.Edit = from.Edit
	}
	p.bind(t, pcrs, from.PCRs)
	s := &bootchain.System{Machine: from.Machine(t, true), ESP: from.ESP(), PCRs: from.PCRs}
	b, err := s.Postdict()
	if err != nil {
		t.Fatal(err)
	}
	s.ESP = to.ESP()
	vars := map[string][]byte{}
	for _, name := range changed {
		vars[name] = []byte{0}
		if content := to.Files[name+".esl"]; content != nil {
			vars[name] = content
		}
	}
	if len(vars) > 0 {
		s.Machine.Variables = efi.Variables{FS: from.Variables(vars)}
	}
	f, err := forecast.Of(s, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := p.Slots[2].Handler.(*tpm2.Handler)
	p.Boot.Next = NextBoots(f, h.BootTokens(p.Slots[2].Tokens))
	if len(p.Boot.Next) != 1 {
		t.Fatalf("%+v", p.Boot.Next)
	}
}

// bind makes the token of keyslot 2 one for values of these PCRs.
func (p *Patient) bind(t *testing.T, pcrs string, values map[int][]byte) {
	t.Helper()
	selected, err := chip.ParsePCRs(pcrs)
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(selected.Set.List())
	if err != nil {
		t.Fatal(err)
	}
	p.tpm(t, "t257.json", string(list))
	bound := chip.PCRValues{}
	for _, n := range selected.Set.List() {
		bound[n] = values[n]
	}
	var policy chip.Digest
	policy.PCR(chip.BankSHA256, bound)
	// The policy stands in the sealed object, and beside it.
	var sealed struct {
		Blob []byte `json:"tpm2-blob"`
		Hash string `json:"tpm2-policy-hash"`
	}
	token := &p.Slots[2].Tokens[0]
	if err := json.Unmarshal(token.Raw, &sealed); err != nil {
		t.Fatal(err)
	}
	old, err := hex.DecodeString(sealed.Hash)
	if err != nil || !bytes.Contains(sealed.Blob, old) {
		t.Fatalf("policy %x, %v", old, err)
	}
	blob := base64.StdEncoding.EncodeToString(bytes.ReplaceAll(sealed.Blob, old, policy[:]))
	for member, text := range map[string]string{"tpm2-policy-hash": hex.EncodeToString(policy[:]), "tpm2-blob": blob} {
		if token.Raw, err = luks2.SetMember(token.Raw, fmt.Appendf(nil, "%q", text), member); err != nil {
			t.Fatal(err)
		}
	}
	p.Header.Tokens = p.Slots[2].Tokens
}
