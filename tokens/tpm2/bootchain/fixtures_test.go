package bootchain

import (
	"bytes"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
)

// chains are the files of testdata. Those that end with -2 are the same states
// booted again with initrds whose hash states were kept.
var chains = []string{"demo", "grub", "shim", "shim262", "type1", "type1-262", "uki", "uki262", "uki262fw", "uki262sb", "uki262sb-2", "uki262x", "uki262x-2", "ukisb", "combos", "more257", "more262"}

// unexplainedPCRs are what cannot be explained from a fixture's files, and why.
var unexplainedPCRs = map[string]string{
	"demo/n 9":  boottest.ErrNotKept.Error(),
	"demo/n1 9": boottest.ErrNotKept.Error(),
	// The first boot of a machine: the mixin was made by it.
	"uki262/first 9": "secret", "uki262sb/base 9": "secret", "uki262sb-2/base 9": "secret", "uki262x/plain 9": "secret", "uki262x-2/plain 9": "secret",
	// No boot secret was kept.
	"combos/boot252-stub262 9": "secret", "more262/base 9": "secret", "more262/splash 9": "secret",
	"uki262fw/base 9": "secret", "uki262fw/base-again 9": "secret", "uki262fw/initrd 9": "secret",
	"uki262x/otherid 9": "secret", "uki262x/nomixin 9": "secret", "uki262x/t1uki 9": "secret",
	"uki262x-2/otherid 9": "secret", "uki262x-2/nomixin 9": "secret", "uki262x-2/t1uki 9": "secret",
	// The initrd of these boots is not to be had any more; the boots of the same
	// states in the chains that end with -2 are explained.
	"uki262/secret 9": boottest.ErrNotKept.Error(), "uki262sb/secret 9": boottest.ErrNotKept.Error(), "uki262sb/addons 9": boottest.ErrNotKept.Error(),
	"uki262x/plain2 9": boottest.ErrNotKept.Error(), "uki262x/sections 9": boottest.ErrNotKept.Error(), "uki262x/profile 9": boottest.ErrNotKept.Error(),
	"uki262x/addons 9": boottest.ErrNotKept.Error(), "uki262x/sidecars 9": boottest.ErrNotKept.Error(), "uki262x/version2 9": boottest.ErrNotKept.Error(), "uki262x/smbios1 9": boottest.ErrNotKept.Error(),
	// The stub adds consoles of the firmware.
	"uki262sb/nocons 9": "console", "uki262sb-2/nocons 9": "console",
	"uki262x/nocons 9": "console", "uki262x/nocons-vga 9": "console", "uki262x/nocons-hvc 9": "console", "uki262x/nocons-both 9": "console",
	"uki262x-2/nocons 9": "console", "uki262x-2/nocons-vga 9": "console", "uki262x-2/nocons-hvc 9": "console", "uki262x-2/nocons-both 9": "console",
	// .efifw is measured if it fits the machine.
	"uki262x/sections 11": ".efifw", "uki262x-2/sections 11": ".efifw",
	// Booted with SMBIOS tables that were not kept.
	"uki262x/smbios 9": "SMBIOS", "uki262x/smbios 12": "SMBIOS", "uki262x-2/smbios 9": "SMBIOS", "uki262x-2/smbios 12": "SMBIOS",
}

// loadChain reads the boots of a chain.
func loadChain(t testing.TB, name string) map[string]*boottest.Boot {
	t.Helper()
	return boottest.Load(t, "testdata", name)
}

// system is a boot as the one that is running, with its own files.
func system(t testing.TB, f *boottest.Boot, secret bool) *System {
	return &System{Machine: f.Machine(t, secret), ESP: f.ESP(), PCRs: f.PCRs}
}

func TestEveryBootIsExplained(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range chains {
		for _, f := range loadChain(t, c) {
			b, err := system(t, f, true).Postdict()
			if err != nil {
				t.Errorf("%s: %v", f.Name, err)
				continue
			}
			for pcr, x := range b.PCRs {
				key := f.Name + " " + strconv.Itoa(pcr)
				want := unexplainedPCRs[key]
				seen[key] = true
				if (x.Reason == "") != (want == "") || !strings.Contains(x.Reason, want) {
					t.Errorf("%s: PCR %d: reason %q, want %q; events %q", f.Name, pcr, x.Reason, want, b.Events[pcr])
				}
				if !bytes.Equal(x.Value[:], f.PCRs[pcr]) {
					t.Errorf("%s: PCR %d replays to %x, the TPM said %x", f.Name, pcr, x.Value, f.PCRs[pcr])
				}
			}
		}
	}
	for key := range unexplainedPCRs {
		if !seen[key] {
			t.Errorf("no such fixture: %s", key)
		}
	}
}

// pair is an update: the boot that runs, and the one that follows.
type pair struct {
	chain, from, to string
	refused         []int
	option          string // "nosecret", "nodmi", "dbx"
}

// pairs are the updates that were predicted when the rules were made, with what was
// refused then.
var pairs = []pair{
	{"uki", "first", "base", nil, ""}, {"uki", "base", "base-again", nil, ""}, {"uki", "base", "initrd", nil, ""}, {"uki", "initrd", "cmdline", nil, ""},
	{"uki", "base", "kernel", nil, ""}, {"uki", "kernel", "stub252", nil, ""}, {"uki", "kernel", "sdboot252", nil, ""}, {"uki", "kernel", "pcrsig", nil, ""},
	{"ukisb", "base", "kernel", nil, ""},
	{"type1", "base", "base-again", nil, ""}, {"type1", "base", "initrd", nil, ""}, {"type1", "initrd", "cmdline", nil, ""}, {"type1", "cmdline", "kernel", nil, ""}, {"type1", "kernel", "sdboot257", nil, ""},
	{"shim", "base", "base-again", nil, ""}, {"shim", "base", "kernel", nil, ""}, {"shim", "kernel", "shim", []int{7, 14}, ""}, {"shim", "shim", "dbx", nil, "dbx"},
	{"grub", "base", "base-again", nil, ""}, {"grub", "base", "initrd", nil, ""}, {"grub", "initrd", "kernel", nil, ""}, {"grub", "kernel", "grub206", []int{4, 8, 9}, ""},
	{"demo", "n", "n1", []int{9}, ""}, // its initrds were not kept
	{"uki262", "first", "base", []int{9}, ""}, {"uki262", "base", "base-again", nil, ""}, {"uki262", "base", "initrd", nil, ""}, {"uki262", "base", "cmdline", nil, ""},
	{"uki262", "base", "kernel", nil, ""}, {"uki262", "base", "kernel72", nil, ""}, {"uki262", "kernel72", "sdboot257", nil, ""}, {"uki262", "sdboot257", "sdboot257-initrd", nil, ""},
	{"uki262", "sdboot257-initrd", "initrd", nil, ""}, {"uki262", "sdboot257-initrd", "stub257", nil, ""}, {"uki262", "stub257", "initrd", nil, ""}, {"uki262", "base", "initrd", []int{9}, "nosecret"},
	{"uki262sb", "base", "base-again", []int{9}, ""}, {"uki262sb", "base-again", "initrd", nil, ""}, {"uki262sb", "base-again", "kernel", nil, ""}, {"uki262sb", "initrd", "kernel", nil, ""},
	{"uki262sb-2", "secret", "nocons", []int{9}, ""}, {"uki262sb-2", "secret", "addons", nil, ""},
	{"type1-262", "base", "base-again", nil, ""}, {"type1-262", "base", "initrd", nil, ""}, {"type1-262", "base", "cmdline", nil, ""}, {"type1-262", "cmdline", "kernel", nil, ""},
	{"type1-262", "kernel", "kernel72", nil, ""}, {"type1-262", "base", "twoinitrds", nil, ""}, {"type1-262", "base", "twoinitrds2", nil, ""}, {"type1-262", "twoinitrds2", "sdboot257", nil, ""},
	{"type1-262", "sdboot257", "base", nil, ""}, {"type1-262", "sdboot257", "base", []int{1}, "nodmi"},
	{"uki262x-2", "plain2", "sections", []int{11}, ""}, {"uki262x-2", "plain2", "profile", nil, ""}, {"uki262x-2", "plain2", "addons", nil, ""}, {"uki262x-2", "plain2", "sidecars", nil, ""},
	{"uki262x-2", "plain2", "nocons", []int{9}, ""}, {"uki262x-2", "plain2", "otherid", []int{9}, ""}, {"uki262x-2", "plain2", "version2", nil, ""}, {"uki262x-2", "plain2", "nomixin", []int{9}, ""},
	{"uki262x-2", "plain2", "t1uki", []int{9}, ""}, {"uki262x-2", "addons", "plain2", nil, ""}, {"uki262x-2", "sidecars", "plain2", nil, ""},
	{"uki262fw", "base", "base-again", []int{9}, ""}, {"uki262fw", "base-again", "initrd", []int{9}, ""},
	{"shim262", "base", "kernel", nil, ""}, {"shim262", "kernel", "sdboot257", nil, ""}, {"shim262", "sdboot257", "kernel", nil, ""},
}

func TestUpdatesArePredicted(t *testing.T) {
	t.Parallel()
	right, movedRight, refused := 0, 0, 0
	for _, p := range pairs {
		boots := loadChain(t, p.chain)
		got := p.predict(t, boots[p.from], boots[p.to])
		for _, pcr := range chain.Predictable() {
			v := got.Of(pcr)
			switch want := boots[p.to].PCRs[pcr]; {
			case v.Grade == Unknown:
				refused++
				if !slices.Contains(p.refused, pcr) {
					t.Errorf("%s: %s -> %s %s: PCR %d is refused: %s", p.chain, p.from, p.to, p.option, pcr, v.Reason)
				}
			case !bytes.Equal(v.Digest[:], want):
				t.Errorf("%s: %s -> %s %s: PCR %d predicted %x, was %x", p.chain, p.from, p.to, p.option, pcr, v.Digest, want)
			default:
				right++
				if v.Moved {
					movedRight++
				}
			}
		}
	}
	if right < 920 || movedRight < 130 || refused > 18 {
		t.Errorf("%d updates: %d values right (%d of them moved), %d refused", len(pairs), right, movedRight, refused)
	}
}

// predict predicts an update as the running system would.
func (p pair) predict(t *testing.T, from, to *boottest.Boot) *Prediction {
	t.Helper()
	s := system(t, from, p.option != "nosecret")
	if p.option == "nodmi" {
		s.Machine.SMBIOS = nil
	}
	b, err := s.Postdict()
	if err != nil {
		t.Fatalf("%s: %v", from.Name, err)
	}
	next := *s
	next.ESP = to.ESP()
	if p.option == "dbx" {
		m := *s.Machine
		m.Variables = efi.Variables{FS: from.Variables(map[string][]byte{"dbx": to.Files["dbx.esl"]})}
		next.Machine = &m
	}
	targets, err := next.Targets()
	if err != nil || len(targets) == 0 {
		t.Fatalf("%s: %d targets, %v", to.Name, len(targets), err)
	}
	got, err := next.Predict(b, targets[0])
	if err != nil {
		t.Fatalf("%s: %v", to.Name, err)
	}
	return got
}

// otherMachine are states whose machine had other devices or tables than the rest
// of their chain: no file tells that.
func otherMachine(f *boottest.Boot) bool {
	return slices.Contains([]string{"smbios", "smbios1", "nocons-vga", "nocons-hvc", "nocons-both"}, path.Base(f.Name)) || f.Name == "shim/dbx"
}

// TestNoPredictionIsWrong goes from every state of a chain to every other one, which
// are many more updates than the rules were made with.
func TestNoPredictionIsWrong(t *testing.T) {
	t.Parallel()
	right, refused := 0, 0
	for _, c := range chains {
		boots := loadChain(t, c)
		for _, a := range slices.Sorted(maps.Keys(boots)) {
			for _, b := range slices.Sorted(maps.Keys(boots)) {
				if otherMachine(boots[a]) || otherMachine(boots[b]) {
					continue
				}
				got := pair{chain: c}.predict(t, boots[a], boots[b])
				for pcr, v := range got.All() {
					if v.Grade == Unknown {
						refused++
					} else if right++; !bytes.Equal(v.Digest[:], boots[b].PCRs[pcr]) {
						t.Errorf("%s: %s -> %s: PCR %d predicted %x, was %x", c, a, b, pcr, v.Digest, boots[b].PCRs[pcr])
					}
				}
			}
		}
	}
	if right < 11436 {
		t.Errorf("%d values right, %d refused", right, refused)
	}
}
