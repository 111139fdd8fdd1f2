package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

const uuid = "11111111-2222-4333-8444-555555555555"

// samples are tokens that systemd 257 made: with a storage key, and without one.
const samples = "../../tokens/tpm2/testdata/samples/"

// healthy is a volume with a passphrase, a recovery key and a TPM that opens it.
func healthy(t *testing.T) *Patient {
	t.Helper()
	types := all.New()
	p := &Patient{Device: "/dev/sda2", Types: types, Memory: 8 << 30, Examined: map[int]tokens.Examination{}, Unexamined: map[string]error{},
		Header: &luks2.Header{UUID: uuid, Space: luks2.Space{JSONTotal: 12287, JSONUsed: 4000, AreasTotal: 16 << 20, AreasFree: 12 << 20, KeyslotsLeft: 29}}}
	argon := luks2.KDF{Type: luks2.KDFArgon2id, MemoryKiB: 1 << 20}
	p.Slots = []tokens.Slot{
		{Keyslot: luks2.Keyslot{ID: 0, KDF: argon}, Kind: tokens.KindPassword},
		{Keyslot: luks2.Keyslot{ID: 1, KDF: luks2.MinimalKDF}, Kind: "recovery", Handler: byName(t, types, "recovery")},
		{Keyslot: luks2.Keyslot{ID: 2, KDF: luks2.MinimalKDF}, Kind: "tpm2", Label: "laptop", Handler: byName(t, types, "tpm2")},
	}
	p.tpm(t, "t257.json", "[7,11]")
	p.examined(tokens.OpensAlone, nil)
	for _, s := range p.Slots {
		p.Header.Keyslots = append(p.Header.Keyslots, s.Keyslot)
	}
	file, err := crypttab.Parse(strings.NewReader("# the disk\nroot UUID="+uuid+" none tpm2-device=auto\n"), "/etc/crypttab")
	if err != nil {
		t.Fatal(err)
	}
	p.Boot = &Boot{Crypttab: file, Grammar: slices.Concat(crypttab.Table, types.Grammar()), UUID: uuid, Devices: []string{"/dev/sda2"}, Set: "cryptsetup-unit crypttab set /dev/sda2"}
	return p
}

func byName(t *testing.T, types tokens.Set, name string) tokens.Handler {
	for _, h := range types {
		if h.Name() == name {
			return h
		}
	}
	t.Fatalf("no type %s", name)
	return nil
}

// tpm gives keyslot 2 a sample of a token, bound to these PCRs.
func (p *Patient) tpm(t *testing.T, sample, pcrs string) {
	t.Helper()
	raw, err := os.ReadFile(samples + sample)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = luks2.SetMember(raw, []byte(pcrs), "tpm2-pcrs")
	if err != nil {
		t.Fatal(err)
	}
	token := luks2.Token{ID: 0, Type: "systemd-tpm2", Keyslots: []int{2}, Raw: raw}
	if _, err := p.Slots[2].Handler.Describe(token); err != nil {
		t.Fatal(err)
	}
	p.Slots[2].Tokens, p.Header.Tokens = []luks2.Token{token}, []luks2.Token{token}
}

// examined says what became of the token of keyslot 2.
func (p *Patient) examined(v tokens.Verdict, err error) {
	e := tokens.Examination{Token: p.Slots[2].Tokens[0], Verdict: v, Err: err}
	if v == tokens.Closed || v == tokens.Dead {
		e.Renew = "reseal --slot=2"
	}
	p.Examined[0] = e
}

// line replaces the crypttab.
func (p *Patient) line(t *testing.T, text string) {
	t.Helper()
	file, err := crypttab.Parse(strings.NewReader(text), "/etc/crypttab")
	if err != nil {
		t.Fatal(err)
	}
	p.Boot.Crypttab, p.Boot.Lint = file, crypttab.Lint(file, &crypttab.LintOptions{Grammar: p.Boot.Grammar})
}

// TestStates arranges one thing that is wrong, and wants it named and nothing else.
func TestStates(t *testing.T) {
	policy := &tokens.PolicyError{Bank: "sha256", PCRs: []tokens.PCRMismatch{{PCR: 7, Name: "secure-boot-policy", Enrolled: make([]byte, 32), Actual: []byte(strings.Repeat("x", 32)),
		Events: []string{"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"}}}}
	for name, c := range map[string]struct {
		arrange func(p *Patient)
		want    string // severity, check, about
		says    string // in text or command
	}{
		"a PCR moved":           {func(p *Patient) { p.examined(tokens.Closed, policy) }, `problem token-closed keyslot 2 (tpm2, "laptop")`, "variable dbx"},
		"and the command":       {func(p *Patient) { p.examined(tokens.Closed, policy) }, `problem token-closed keyslot 2 (tpm2, "laptop")`, "cryptenroll reseal --slot=2 /dev/sda2"},
		"another TPM":           {func(p *Patient) { p.examined(tokens.Dead, tokens.ErrOtherDevice) }, `problem token-dead keyslot 2 (tpm2, "laptop")`, "another security device"},
		"a locked TPM":          {func(p *Patient) { p.examined(tokens.Unclear, tokens.ErrLocked) }, `warning token-unclear keyslot 2 (tpm2, "laptop")`, "locked"},
		"device not plugged in": {func(p *Patient) { p.examined(tokens.Absent, tokens.ErrNoDevice) }, `note token-absent keyslot 2 (tpm2, "laptop")`, "not present"},
		"no TPM":                {func(p *Patient) { delete(p.Examined, 0); p.Unexamined["tpm2"] = tokens.ErrNoDevice }, `warning device-missing keyslot 2 (tpm2, "laptop")`, "not present"},
		"altered token":         {func(p *Patient) { p.Slots[2].Altered = true }, `problem token-altered keyslot 2 (tpm2, "laptop")`, "--wipe-slot=2"},
		"earlier state": {func(p *Patient) {
			p.examined(tokens.Closed, policy)
			e := p.Examined[0]
			e.Spare = true
			p.Examined[0] = e
		}, `note token-spare keyslot 2 (tpm2, "laptop")`, "--wipe-slot=2"},
		"dead alternative": {func(p *Patient) {
			p.examined(tokens.Dead, tokens.ErrOtherDevice)
			e := p.Examined[0]
			e.Spare = true
			p.Examined[0] = e
		}, `warning token-dead keyslot 2 (tpm2, "laptop")`, "another keyslot took its place"},
		"unusable slot": {func(p *Patient) { p.Slots[1].Problem = "token 1: member \"x\": is not base64" }, "warning slot-unusable keyslot 1 (recovery)\nnote no-recovery-key ways in", "not base64"},
		"ignored slot":  {func(p *Patient) { p.Slots[1].Skipped = "tried only when it is named (priority ignore)" }, "note slot-skipped keyslot 1 (recovery)\nnote no-recovery-key ways in", "--priority normal"},
		"only devices": {func(p *Patient) {
			p.Slots = p.Slots[2:]
		}, "warning no-secret ways in", "--recovery-key"},
		"no way in":         {func(p *Patient) { p.Slots = nil }, "problem no-way-in ways in", "is lost at the next reboot"},
		"no recovery key":   {func(p *Patient) { p.Slots = slices.Delete(p.Slots, 1, 2) }, "note no-recovery-key ways in", "--recovery-key"},
		"one passphrase":    {func(p *Patient) { p.Slots = p.Slots[:1] }, "warning one-way-in ways in", "--recovery-key"},
		"too much memory":   {func(p *Patient) { p.Memory = 1 << 29 }, "problem memory keyslot 0 (password)", "needs 1024 MiB and the machine has 512"},
		"hardly any memory": {func(p *Patient) { p.Memory = 3 << 29 }, "warning memory keyslot 0 (password)", "--pbkdf-memory 393216"},
		"damaged copy":      {func(p *Patient) { p.Header.Copies[1].Err = errors.New("checksum is wrong") }, "warning copy-damaged header copy 1", "doctor --fix"},
		"full JSON":         {func(p *Patient) { p.Header.Space.JSONUsed = 11500 }, "warning space header", "787 bytes left"},
		"full key areas":    {func(p *Patient) { p.Header.Space.KeyslotsLeft = 0 }, "warning space header", "no room for another keyslot"},
		"orphan":            {func(p *Patient) { p.Header.Tokens = append(p.Header.Tokens, luks2.Token{ID: 5, Type: "systemd-fido2"}) }, "note orphan token 5 (systemd-fido2)", "doctor --fix"},
		"not in crypttab":   {func(p *Patient) { p.line(t, "other UUID=22222222-2222-4333-8444-555555555555\n") }, "warning crypttab-absent /etc/crypttab", "crypttab set /dev/sda2 tpm2-device=auto"},
		"no crypttab":       {func(p *Patient) { p.Boot.Crypttab = nil }, "warning crypttab-absent /etc/crypttab", "crypttab set /dev/sda2 tpm2-device=auto"},
		"two lines": {func(p *Patient) {
			p.line(t, "a UUID="+uuid+" none tpm2-device=auto\nb UUID="+uuid+" none tpm2-device=auto\n")
		}, "problem crypttab-twice /etc/crypttab", "lines 1 and 2"},
		"option missing":      {func(p *Patient) { p.line(t, "root UUID="+uuid+" none luks\n") }, `warning crypttab-option keyslot 2 (tpm2, "laptop")`, "crypttab set /dev/sda2 tpm2-device=auto"},
		"option misspelt":     {func(p *Patient) { p.line(t, "root UUID="+uuid+" none tpm2-device=auto,tpm-pcrs=7\n") }, "warning crypttab-lint /etc/crypttab:1", "tpm"},
		"PCR 7 alone":         {func(p *Patient) { p.tpm(t, "t257.json", "[7]") }, `warning token-weak keyslot 2 (tpm2, "laptop")`, "any system that Secure Boot accepts"},
		"no condition at all": {func(p *Patient) { p.tpm(t, "t257.json", "[]") }, `warning token-weak keyslot 2 (tpm2, "laptop")`, "--tpm2-with-pin=yes --wipe-slot=2 /dev/sda2"},
		"PIN for any TPM":     {func(p *Patient) { p.tpm(t, "pin252.json", "[7]") }, `warning token-weak keyslot 2 (tpm2, "laptop")`, "luksmith-tpm2-srk="},
		"initrd": {func(p *Patient) {
			p.Boot.Initrd = []Finding{{Check: "initrd", Severity: Problem, About: "/boot/initrd.img", Text: "lacks the module tpm_tis"}}
		}, "problem initrd /boot/initrd.img", "tpm_tis"},
		"nothing": {func(p *Patient) {}, "", ""},
		// Updates between real boots, with a token for the boot that is running.
		"no update":                        {func(p *Patient) { p.next4(t, "uki", "base", "base-again", "4+7") }, "", ""},
		"kernel updated":                   {func(p *Patient) { p.next4(t, "uki", "base", "kernel", "4+7") }, "problem next-closed next boot of lab", "PCR 4 moved by /EFI/Linux/lab.efi (systemd-stub, section .linux)"},
		"and what helps":                   {func(p *Patient) { p.next4(t, "uki", "base", "kernel", "4+7") }, "problem next-closed next boot of lab", "cryptenroll follow /dev/sda2"},
		"initrd rebuilt":                   {func(p *Patient) { p.next4(t, "type1", "base", "initrd", "4+7+9") }, "problem next-closed next boot of lab (lab 1)", "PCR 9 moved by /lab/initrd1 (initrd)"},
		"initrd is not covered":            {func(p *Patient) { p.next4(t, "type1", "base", "initrd", "4+7") }, "", ""},
		"loader replaced":                  {func(p *Patient) { p.next4(t, "uki", "kernel", "sdboot252", "4+7") }, "problem next-closed next boot of lab", "/EFI/BOOT/BOOTX64.EFI (systemd-boot)"},
		"shim replaced":                    {func(p *Patient) { p.next4(t, "shim", "kernel", "shim", "4+7") }, "warning next-unknown next boot of lab (lab 1)", "PCR 7: the shim changed"},
		"dbx":                              {func(p *Patient) { p.next4(t, "shim", "shim", "dbx", "7", "dbx") }, "problem next-closed next boot of lab (lab 1)\nwarning token-weak keyslot 2 (tpm2, \"laptop\")", "PCR 7 moved by variable dbx"},
		"Secure Boot toggled":              {func(p *Patient) { p.next4(t, "ukisb", "base", "base", "4+7", "SecureBoot") }, "warning next-unknown next boot of lab", "the variable SecureBoot was changed"},
		"nothing changed, unmeasured shim": {func(p *Patient) { p.next4(t, "shim", "base", "base-again", "4+7", "old shim") }, "", ""},
		"kernel updated, unmeasured shim":  {func(p *Patient) { p.next4(t, "shim", "base", "kernel", "4+7", "old shim") }, "warning next-unknown next boot of lab (lab 1)", "shim 15.8"},
		"token for the next boot": {func(p *Patient) {
			p.next4(t, "uki", "base", "kernel", "4+7")
			p.Boot.Next[0].Opens = []int{0}
			p.examined(tokens.Closed, policy)
		}, "", ""},
		"older entry": {func(p *Patient) {
			p.next4(t, "uki", "base", "kernel", "4+7")
			p.Boot.Next[0].Older = true
		}, "warning next-closed next boot of lab", "no TPM2 keyslot opens the volume then"},
		"boot partition not there": {func(p *Patient) { p.Boot.NextErr = errors.New("the EFI system partition was not found") }, "warning next-unknown next boot", "was not found"},
		"closed now": {func(p *Patient) {
			p.next4(t, "uki", "base", "kernel", "4+7")
			p.examined(tokens.Closed, policy)
		}, `problem token-closed keyslot 2 (tpm2, "laptop")`, "reseal"},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			c.arrange(p)
			var got []string
			said := ""
			for _, f := range Examine(p) {
				got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.Check, f.About))
				said += f.Text + "\n" + f.Command + "\n"
			}
			if text := strings.Join(got, "\n"); text != c.want {
				t.Errorf("found\n%s\nwant %s", text, c.want)
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("%q does not say %q", said, c.says)
			}
		})
	}
}

// TestGravestFirst: who reads one line reads the right one.
func TestGravestFirst(t *testing.T) {
	p := healthy(t)
	p.Slots = slices.Delete(p.Slots, 1, 2)
	p.Slots[1].Altered = true
	p.Header.Space.JSONUsed = 11500
	var got []Severity
	for _, f := range Examine(p) {
		got = append(got, f.Severity)
	}
	if !slices.Equal(got, []Severity{Problem, Warning, Note}) || Worst(Examine(p)) != Problem {
		t.Errorf("%v", got)
	}
}
