package main

import (
	"slices"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/combo"
)

// Answers of the two factors: the toy's PIN has eight digits.
const (
	toyPIN      = "01234567"
	comboPhrase = "of the combination"
)

// withCombo are a toy and what combines it with a passphrase.
func withCombo() tokens.Set {
	toy := &tokentest.Toy{Device: "present"}
	return tokens.Set{toy, combo.New(tokens.Set{toy})}
}

// comboVolume is a volume that nothing but both factors open.
func comboVolume(t *testing.T) *luks2test.Volume {
	t.Helper()
	v := newVolume(t)
	h := withCombo()[1].(*combo.Handler)
	for _, o := range h.Options() {
		if o.Name == "all-of" {
			if err := o.Set("toy,passphrase"); err != nil {
				t.Fatal(err)
			}
		}
	}
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Volume: tokens.Volume{UUID: v.UUID, Device: v.Path}, Compat: 262},
		tokentest.NewUI(t, tokentest.Typed(toyPIN, comboPhrase)...))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	v.Enroll(t, string(e.Passphrase.Bytes()), luks2.Token{Type: h.Type(), Raw: e.Token})
	err = v.Device.Update(t.Context(), func(tx *luks2.Tx) error {
		if err := tx.RemoveKeyslot(0); err != nil {
			return err
		}
		return tx.RemoveKeyslot(1)
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCombinationOpensAtBoot by luksmith-combo= in crypttab: each factor asks its own
// question, and one that is wrong opens nothing.
func TestCombinationOpensAtBoot(t *testing.T) {
	t.Parallel()
	v := comboVolume(t)
	b := newBench(t)
	b.newHandlers = withCombo
	asked := b.agent(t, "+"+toyPIN, "+"+comboPhrase)
	r, err := b.run(t, "vol", v.Path, "-", "luksmith-combo=auto,password-cache=no")
	if err != nil || len(b.mapped) != 1 || r.Opened.By != "combo token" || *r.Opened.Keyslot != 2 {
		t.Fatalf("%v: %+v", err, r)
	}
	var questions []string
	for _, q := range asked() {
		questions = append(questions, q["Message"])
	}
	if len(questions) != 2 || !slices.ContainsFunc(questions, func(q string) bool { return strings.Contains(q, "PIN") }) ||
		!slices.ContainsFunc(questions, func(q string) bool { return strings.Contains(q, "Passphrase, one of the factors") }) {
		t.Errorf("asked: %q", questions)
	}

	b = newBench(t)
	b.newHandlers = withCombo
	b.agent(t, "+"+toyPIN, "+wrong", "+"+toyPIN, "+wrong", "+wrong", "+wrong")
	r, err = b.run(t, "vol", v.Path, "-", "luksmith-combo=auto,password-cache=no,tries=1,luksmith-token-only")
	if cli.ExitStatus(err) != cli.ExitNoKey || len(b.mapped) != 0 {
		t.Errorf("a wrong factor: %v: %+v", err, r)
	}
}
