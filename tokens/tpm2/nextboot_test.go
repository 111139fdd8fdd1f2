package tpm2

import (
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
)

// recordedBoots are the event logs of a chain of boots of package bootchain.
func recordedBoots(t *testing.T, chain string) map[string][]eventlog.Event {
	t.Helper()
	archive, err := txtar.ParseFile("bootchain/testdata/" + chain + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	boots := map[string][]eventlog.Event{}
	for _, f := range archive.Files {
		state, ok := strings.CutSuffix(f.Name, "/eventlog.bin.b64")
		if !ok {
			continue
		}
		text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(f.Data), "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		if boots[state], err = eventlog.Parse(text); err != nil {
			t.Fatal(err)
		}
	}
	return boots
}

// bootInto is a power cycle after which everything was measured that a log says.
func bootInto(swtpm *testenv.TPM, events []eventlog.Event) {
	swtpm.Reset()
	for _, e := range events {
		if d := e.Digests["sha256"]; len(d) == 32 && e.PCR < chip.PCRCount {
			swtpm.Extend(e.PCR, "sha256", d)
		}
	}
}

func stateOf(label string, events []eventlog.Event, pcrs ...int) BootState {
	s := BootState{PCRs: map[int][]byte{}, Label: label, Entry: BootEntry{ID: label, MachineID: "6f1d4a1e0a1d4b0f9d7e1f6a2f3b4c5d"}}
	for _, n := range pcrs {
		s.PCRs[n] = eventlog.Replay(events, "sha256", n)
	}
	return s
}

// TestKeysForBootsToComeOpenInThem seals in one recorded boot for others and starts
// each of them.
func TestKeysForBootsToComeOpenInThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		chain string
		pcrs  []int
		next  []string
	}{
		{"uki", []int{4, 7}, []string{"kernel", "initrd", "stub252"}},
		{"uki262", []int{4, 7}, []string{"kernel", "kernel72", "sdboot257"}},
		{"type1", []int{4, 7, 9}, []string{"initrd", "kernel"}},
		{"grub", []int{4, 7, 8, 9}, []string{"initrd", "kernel"}},
		{"ukisb", []int{4, 7}, []string{"kernel"}},
		{"uki", []int{4, 11, 12}, []string{"kernel", "cmdline"}},
	} {
		t.Run(c.chain, func(t *testing.T) {
			t.Parallel()
			boots := recordedBoots(t, c.chain)
			swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
			bootInto(swtpm, boots["base"])
			h := handlerFor(t, swtpm.Device())
			req := &SealRequest{Compat: 257, States: []BootState{stateOf("base", boots["base"], c.pcrs...)}}
			for _, name := range c.next {
				req.States = append(req.States, stateOf(name, boots[name], c.pcrs...))
			}
			list, err := h.SealForBoots(t.Context(), req, tokentest.NewUI(t))
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range list {
				t.Cleanup(e.Passphrase.Wipe)
				if e.Proven != (i == 0) {
					t.Errorf("%s: proven %v", e.Label, e.Proven)
				}
			}
			for i, name := range append([]string{"base"}, c.next...) {
				bootInto(swtpm, boots[name])
				for k, e := range list {
					got, err := unlockToken(t, h, asToken(k, e.Token))
					if same := maps.EqualFunc(req.States[i].PCRs, req.States[k].PCRs, slices.Equal); same != (err == nil) {
						t.Errorf("in %s the key for %s: %v", name, e.Label, err)
					}
					if err == nil {
						got.Passphrase.Wipe()
					} else if !errors.Is(err, tokens.ErrPolicy) {
						t.Errorf("in %s: %v", name, err)
					}
				}
			}
		})
	}
}

// TestCommandsForOneState is a promise: the machine waits for it during an update.
func TestCommandsForOneState(t *testing.T) {
	t.Parallel()
	boots := recordedBoots(t, "uki")
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	bootInto(swtpm, boots["base"])
	h := handlerFor(t, swtpm.Device())
	enrolled(t, h) // makes the storage key
	many := []string{"base", "kernel", "initrd", "stub252", "cmdline", "kernel", "base"}
	for i, names := range [][]string{{"kernel"}, {"base"}, many, many} {
		req := &SealRequest{Compat: []int{257, 257, 257, 252}[i]}
		for _, name := range names {
			req.States = append(req.States, stateOf(name, boots[name], 4, 7))
		}
		swtpm.Mark()
		list, err := h.SealForBoots(t.Context(), req, tokentest.NewUI(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			e.Passphrase.Wipe()
		}
		got := checkCount(t, swtpm, 12*len(names))
		t.Logf("%d states: %d commands: %s", len(names), len(got), strings.Join(namesOf(got), " "))
	}
}

func TestTokensOfBootsAreRecognised(t *testing.T) {
	t.Parallel()
	boots := recordedBoots(t, "uki")
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	bootInto(swtpm, boots["base"])
	h := handlerFor(t, swtpm.Device())
	state := stateOf("kernel", boots["kernel"], 4, 7)
	made, err := h.SealForBoots(t.Context(), &SealRequest{Compat: 257, States: []BootState{state}}, tokentest.NewUI(t))
	if err != nil {
		t.Fatal(err)
	}
	defer made[0].Passphrase.Wipe()
	with := func(set func(*Handler), pin ...string) luks2.Token {
		o := handlerFor(t, swtpm.Device())
		o.PCRs = mustPCRs(t, "7")
		set(o)
		return asToken(1, enrolled(t, o, pin...).Token)
	}
	list := h.BootTokens([]luks2.Token{asToken(0, made[0].Token), with(func(*Handler) {}), with(func(o *Handler) { o.WithPIN = PINDirect }, "4711"),
		with(func(o *Handler) { o.Latch = true }), {Type: "systemd-recovery"}, {Type: tokenType, Raw: []byte("{}")}})
	if len(list) != 4 {
		t.Fatalf("%d tokens", len(list))
	}
	next := list[0]
	if next.Entry == nil || *next.Entry != state.Entry || !next.Plain || !next.For(state.PCRs) || !slices.Equal(next.PCRs, []int{4, 7}) {
		t.Errorf("%+v", next)
	}
	base := stateOf("base", boots["base"], 4, 7).PCRs
	if next.For(base) || next.Opens(base) || next.For(map[int][]byte{7: base[7]}) {
		t.Error("it is taken to be for the running boot")
	}
	if seven := list[1]; !seven.Plain || seven.Entry != nil || seven.For(base) || !seven.Opens(base) {
		t.Errorf("PCR 7: %+v", seven)
	}
	for _, b := range list[2:] {
		if b.Plain || b.For(base) || b.Opens(base) {
			t.Errorf("with PIN or latch: %+v", b)
		}
	}
}
