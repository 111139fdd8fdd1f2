package tpm2

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
)

// boot resets the TPM and measures the events of a recorded log into it, as the
// firmware did; the log is put where the kernel shows it.
func boot(t testing.TB, swtpm *testenv.TPM, h *Handler, log string, pcrs ...int) []eventlog.Event {
	t.Helper()
	text := readTestFile(t, filepath.Join("eventlog/testdata", log))
	events, err := eventlog.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	swtpm.Reset()
	for _, e := range events {
		if slices.Contains(pcrs, e.PCR) && len(e.Digests["sha256"]) == 32 {
			swtpm.Extend(e.PCR, "sha256", e.Digests["sha256"])
		}
	}
	path := h.Paths.firmwareLog()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return events
}

// policyError unlocks, which must fail because of the policy.
func policyError(t testing.TB, h *Handler, raw json.RawMessage, answers ...string) *tokens.PolicyError {
	t.Helper()
	req := &tokens.UnlockRequest{Tokens: []luks2.Token{asToken(3, raw)}, Volume: tokens.Volume{Device: "/dev/sda2"}}
	_, err := h.Unlock(t.Context(), req, tokentest.NewUI(t, tokentest.Typed(answers...)...))
	pe, ok := errors.AsType[*tokens.PolicyError](err)
	if !ok || !errors.Is(err, tokens.ErrPolicy) {
		t.Fatalf("%v, want a PolicyError", err)
	}
	hinted, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if !ok || hinted.Hint() == "" {
		t.Errorf("%v has no hint", err)
	}
	return pe
}

func numbers(pe *tokens.PolicyError) []int {
	var list []int
	for _, p := range pe.PCRs {
		list = append(list, p.PCR)
	}
	return list
}

// TestUpdatesAreExplained enrols on one recorded boot and unlocks on the next.
func TestUpdatesAreExplained(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for _, c := range []struct {
		name, before, after, pcrs string
		moved                     []int
		event                     string
	}{
		{"dbx update", "ubuntu-5.11.0-1008.bin", "ubuntu-5.11.0-1006-dbx.bin", "0+2+7", []int{7},
			"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"},
		{"Secure Boot off", "ubuntu-5.11.0-1008-secureboot.bin", "ubuntu-5.11.0-1008.bin", "7", []int{7},
			"variable SecureBoot (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"},
		{"kernel update", "ubuntu-5.11.0-1006-dbx.bin", "ubuntu-5.11.0-1008.bin", "2+9", []int{9},
			"/boot/vmlinuz-5.11.0-1008-gcp (EV_IPL) is new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handlerFor(t, swtpm.Device())
			h.PCRs = mustPCRs(t, c.pcrs)
			boot(t, swtpm, h, c.before, h.PCRs.Set.List()...)
			e := enrolled(t, h)
			if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
				t.Fatalf("on the same boot: %v", err)
			}
			events := boot(t, swtpm, h, c.after, h.PCRs.Set.List()...)
			pe := policyError(t, h, e.Token)
			if !slices.Equal(numbers(pe), c.moved) || pe.Bank != "sha256" {
				t.Fatalf("%v, want PCRs %v", pe, c.moved)
			}
			if p := pe.PCRs[0]; !slices.Contains(p.Events, c.event) || !slices.Equal(p.Actual, eventlog.Replay(events, "sha256", p.PCR)) {
				t.Errorf("events %q, want %q", p.Events, c.event)
			}
			// Without /var, as in an initrd, the digests in the token remain.
			if err := os.RemoveAll(h.Paths.state()); err != nil {
				t.Fatal(err)
			}
			brief := policyError(t, h, e.Token).PCRs[0].Events
			if len(brief) == 0 || !strings.Contains(strings.Join(brief, "|"), strings.Fields(c.event)[0]) {
				t.Errorf("events without the saved log: %q", brief)
			}
		})
	}
}

// TestMovedPCRIsNamed extends one PCR and no log tells.
func TestMovedPCRIsNamed(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, pin := range map[string]PINMode{"no PIN": PINNone, "PIN": PINDirect} {
		t.Run(name, func(t *testing.T) {
			h := handlerFor(t, swtpm.Device())
			h.PCRs, h.WithPIN = mustPCRs(t, "7+11"), pin
			var answers []string
			if pin != PINNone {
				answers = []string{"4711"}
			}
			e := enrolled(t, h, answers...)
			before := lockoutOf(t, swtpm)
			measured := sha256.Sum256([]byte("update"))
			swtpm.Extend(11, "sha256", measured[:])
			pe := policyError(t, h, e.Token) // the PIN is not asked for
			checkTries(t, swtpm, before, 0)
			if !slices.Equal(numbers(pe), []int{11}) {
				t.Fatalf("%v, want PCR 11 alone", pe)
			}
			value := sha256.Sum256(append(make([]byte, 32), measured[:]...))
			want := fmt.Sprintf("PCR 11 (kernel-boot) changed: 00000000… -> %x…", value[:4])
			if !strings.Contains(pe.Error(), want) {
				t.Errorf("%q does not say %q", pe, want)
			}
			swtpm.Reset()
		})
	}
}

// TestSystemdTokenIsExplainedByExactCandidates has no recorded values to compare.
func TestSystemdTokenIsExplainedByExactCandidates(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for _, c := range []struct{ name, before, after, want string }{
		{"Secure Boot off", "ubuntu-5.11.0-1008-secureboot.bin", "ubuntu-5.11.0-1008.bin", "PCR 7 (secure-boot-policy) alone is different: Secure Boot was on and is off"},
		{"dbx update", "ubuntu-5.11.0-1008.bin", "ubuntu-5.11.0-1006-dbx.bin", "single changes that the event log allows explains it"},
		{"nothing measured then", "", "arch-workstation.bin", "PCR 7 (secure-boot-policy) alone is different: nothing had been measured into it then"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handlerFor(t, swtpm.Device())
			h.PCRs = mustPCRs(t, "2+7")
			if c.before != "" {
				boot(t, swtpm, h, c.before, 2, 7)
			} else {
				h.PCRs = mustPCRs(t, "7")
				swtpm.Reset()
			}
			raw := json.RawMessage(changed(t, enrolled(t, h).Token, tokens.ExtraMember, ""))
			boot(t, swtpm, h, c.after, 2, 7)
			pe := policyError(t, h, raw)
			if len(pe.PCRs) != 0 || !strings.Contains(pe.Detail, "only the digest of its policy is known") || !strings.Contains(pe.Detail, c.want) {
				t.Errorf("%v, want %q", pe, c.want)
			}
		})
	}
}

// TestNewEventIsFoundWithoutRecordedValues measures one more program than at
// enrolment.
func TestNewEventIsFoundWithoutRecordedValues(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "4:sha256")
	events := boot(t, swtpm, h, "ubuntu-5.11.0-1008.bin") // measures nothing
	of := eventlog.Of(events, 4)
	var skipped string
	for _, e := range of {
		if strings.Contains(e.String(), "shimx64") {
			skipped = e.String()
			continue
		}
		swtpm.Extend(4, "sha256", e.Digests["sha256"])
	}
	raw := json.RawMessage(changed(t, enrolled(t, h).Token, tokens.ExtraMember, ""))
	boot(t, swtpm, h, "ubuntu-5.11.0-1008.bin", 4)
	if pe := policyError(t, h, raw); skipped == "" || !strings.Contains(pe.Detail, skipped+" is new") {
		t.Errorf("%v, want that %q is new", pe, skipped)
	}
}

// TestWrongRecordIsIgnored: our member is not protected, so what it says counts
// only if the policy follows from it.
func TestWrongRecordIsIgnored(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := handlerFor(t, swtpm.Device())
	h.PCRs = mustPCRs(t, "7")
	e := enrolled(t, h)
	for name, member := range map[string]string{
		"another value": `{"tpm2":{"pcrs":{"7":"` + strings.Repeat("B", 42) + `A="}}}`,
		"short value":   `{"tpm2":{"pcrs":{"7":"AAAA"}}}`,
		"another PCR":   `{"tpm2":{"pcrs":{"8":"` + strings.Repeat("A", 43) + `="}}}`,
		"no PCR":        `{"tpm2":{"pcrs":{"99":"AAAA"}}}`,
		"wrong type":    `{"tpm2":7}`,
	} {
		raw := json.RawMessage(changed(t, e.Token, tokens.ExtraMember, member))
		if _, err := unlockToken(t, h, asToken(0, raw)); err != nil {
			t.Errorf("%s keeps the token from opening: %v", name, err)
		}
		if values := tokenOf(t, raw).recorded(); values != nil {
			t.Errorf("%s is believed: %x", name, values)
		}
	}
}

func TestRecordFitsIntoOneKiB(t *testing.T) {
	t.Parallel()
	events := boot(t, testenv.StartTPM(t, testenv.TPMOptions{}), &Handler{Paths: Paths{Root: t.TempDir()}}, "ubuntu-5.11.0-1008.bin")
	values := chip.PCRValues{}
	for i := range 10 {
		values[i] = eventlog.Replay(events, "sha256", i)
	}
	x := newExtra(tokens.NewExtra(strings.Repeat("l", 100), "a long product name"), bootState{bank: chip.BankSHA256, values: values, events: events})
	if x.size() > maxExtra || x.TPM2 == nil || len(x.TPM2.PCRs) != 10 {
		t.Errorf("%d bytes, record %v", x.size(), x.TPM2)
	}
	if x.TPM2.Events["8"] != nil || x.TPM2.Events["7"] == nil {
		t.Error("the busiest PCR should go first")
	}
	for i := 10; i < 24; i++ {
		values[i] = make([]byte, 64)
	}
	if x := newExtra(tokens.Extra{}, bootState{bank: chip.BankSHA512, values: values}); x.size() > maxExtra {
		t.Errorf("%d bytes with 24 SHA-512 values", x.size())
	}
}

func TestOldEventLogsAreRemoved(t *testing.T) {
	t.Parallel()
	p := Paths{Root: t.TempDir()}
	event := []eventlog.Event{{PCR: 7, Digests: map[string][]byte{"sha256": make([]byte, 32)}, Text: "x"}}
	for i := range maxSavedLogs + 5 {
		p.saveLog(chip.Digest{byte(i)}, chip.BankSHA256, event)
	}
	entries, err := os.ReadDir(filepath.Join(p.state(), "events"))
	if err != nil || len(entries) != maxSavedLogs {
		t.Errorf("%d logs are kept, %v", len(entries), err)
	}
}

// TestPCRThatUserSpaceExtendedIsNoted: what is measured after the unlock of the
// next boot is missing then.
func TestPCRThatUserSpaceExtendedIsNoted(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for text, noted := range map[string]bool{"enter-initrd": false, "sysinit": true} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, "11")
		path := h.Paths.userspaceLog()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		record := "\x1e" + `{"pcr":11,"digests":[],"content":{"string":"` + text + `","eventType":"phase"}}` + "\n"
		if err := os.WriteFile(path, []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(enrolled(t, h).Notes, "\n")
		if strings.Contains(notes, "has been extended since the boot") != noted {
			t.Errorf("%s: notes %q", text, notes)
		}
	}
}
