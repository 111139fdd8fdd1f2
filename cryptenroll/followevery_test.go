package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/testenv"
)

// everyFollow edits the one token of a machine's volume in every way, and has follow
// make keys of it, alone and with the options. What it makes has to be what it makes of
// the token as it was; it makes nothing at all where allowed is false.
func everyFollow(t *testing.T, m *bootMachine, volume string, allowed bool, calls ...[]string) {
	t.Helper()
	path := filepath.Join(m.root, volume)
	v := &victim{volume: path, tokenType: "systemd-tpm2", conditions: append(slices.Clone(tpm2Conditions), "type"), added: tpm2Added}
	fresh := content(t, path)
	followed := filepath.Join(m.root, "var/lib/luksmith/follow.json")
	run := func(call []string) result {
		if err := os.RemoveAll(followed); err != nil {
			t.Fatal(err)
		}
		return m.follow(append(slices.Clone(call), volume)...)
	}
	var want [][]string // of each call
	for _, call := range calls {
		r := run(call)
		if (r.status == 0) != allowed {
			t.Fatalf("%q of the token as it was: %d\n%s", call, r.status, r.stderr)
		}
		want = append(want, tokensAsText(t, path, v.conditions))
		if err := os.WriteFile(path, fresh, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	v.volume = original
	list := append(everyEdit(t, exported(t, original, v.tokenType, nil)[0], v.added), v.around()...)
	for i, e := range list {
		bare := edit{e.name + ", without MAC", func(m map[string]json.RawMessage) { e.make(m); withoutMAC(m) }, e.header}
		for k, e := range []edit{e, bare} {
			for n, call := range calls {
				if !testenv.EndToEnd() && (i+k+n)%(6*len(calls)) != 0 {
					continue
				}
				planted, before := v.plant(t, e)
				if err := errors.Join(os.Rename(planted, path)); err != nil {
					t.Fatal(err)
				}
				tokens := tokensAsText(t, path, nil)
				r := run(call)
				wrote := !bytes.Equal(before, bothHeaders(t, path))
				if wrote && !allowed || !wrote && r.status == 0 {
					t.Errorf("%s: %q: exit status %d, header changed: %t\n%s%s", e.name, call, r.status, wrote, r.stdout, r.stderr)
				}
				all := tokensAsText(t, path, nil)
				for at, got := range tokensAsText(t, path, v.conditions) {
					if !slices.Contains(tokens, all[at]) && !slices.Contains(want[n], got) {
						t.Errorf("%s: %q made a key with\n%s\nof the token as it was, these:\n%q", e.name, call, got, want[n])
					}
				}
			}
		}
	}
}

// TestFollowOfEveryEditOfATokenWithPIN: no edit makes follow seal a key without PIN.
func TestFollowOfEveryEditOfATokenWithPIN(t *testing.T) {
	t.Parallel()
	m, volume := pinnedMachine(t)
	everyFollow(t, m, volume, false, []string{"--unlock-key-file=/key"}, []string{"--unlock-key-file=/key", "--tpm2-pcrs=7"})
}

// TestFollowOfEveryEditOfAToken: a key is made for the PCRs of the token that was
// enrolled, or none.
func TestFollowOfEveryEditOfAToken(t *testing.T) {
	t.Parallel()
	m, volume := followMachine(t)
	m.put("key", []byte("hunter2"))
	m.install("debian-6.12.2", "another kernel")
	everyFollow(t, m, volume, true, nil, []string{"--unlock-key-file=/key"})
}
