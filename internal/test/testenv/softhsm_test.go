package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSoftHSMHoldsTokensAndKeys(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, card := NewSoftHSM(t), Token{Label: "card one", PIN: "123456"}
	s.AddToken(t, card)
	s.AddKey(t, card, Key{ID: "0a", Label: "disk", Private: key})
	s.AddKey(t, card, Key{ID: "0b", Label: "hidden", Private: key, NoCertificate: true, NoPublicKey: true})
	list := s.Tool(t, card, "--login", "--list-objects")
	for want, n := range map[string]int{"Private Key Object": 2, "Public Key Object": 1, "Certificate Object": 1} {
		if strings.Count(list, want) != n {
			t.Errorf("%s: want %d in\n%s", want, n, list)
		}
	}
	other := NewSoftHSM(t)
	other.Restore(t, s.store)
	if copied := other.Tool(t, card, "--list-objects"); !strings.Contains(copied, "disk") {
		t.Errorf("the copy holds\n%s", copied)
	}
}

func TestWithEnvKeepsQuotes(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "show")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nprintf %s \"$A$B\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(WithEnv(t, program, `A=it's "x"`, "B=$HOME")).Output()
	if err != nil || string(out) != `it's "x"$HOME` {
		t.Errorf("%q, %v", out, err)
	}
}
