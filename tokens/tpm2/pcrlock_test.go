package tpm2

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// predict has systemd-pcrlock 257 make a policy in the TPM: PCR 11 may have been
// extended with kernel-a, -b or -c, PCR 7 with db-d or db-e, PCR 12 not at all.
// The TPM is in the state a, d.
func predict(t *testing.T, p *peer, swtpm *testenv.TPM) (policyFile string) {
	t.Helper()
	var log strings.Builder
	for _, c := range []struct {
		component string
		pcr       int
		variants  []string
	}{{"500-kernel", 11, []string{"kernel-a", "kernel-b", "kernel-c"}}, {"600-db", 7, []string{"db-d", "db-e"}}} {
		folder := filepath.Join(p.dir, "components", c.component+".pcrlock.d")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, variant := range c.variants {
			digest := sha256.Sum256([]byte(variant))
			record := fmt.Sprintf(`{"pcr":%d,"digests":[{"hashAlg":"sha256","digest":"%x"}]`, c.pcr, digest)
			if err := os.WriteFile(filepath.Join(folder, variant+".pcrlock"), []byte(`{"records":[`+record+`}]}`), 0o644); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				fmt.Fprintf(&log, "\x1e%s,\"content_type\":\"systemd\",\"content\":{\"string\":%q,\"eventType\":\"phase\"}}\n", record, variant)
			}
		}
	}
	measure(swtpm, "kernel-a", "db-d")
	policyFile = filepath.Join(p.dir, "pcrlock.json")
	cmd := p.command([]string{"SYSTEMD_TPM2_DEVICE=" + swtpm.Device(), "SYSTEMD_MEASURE_LOG_FIRMWARE=/dev/null", "SYSTEMD_MEASURE_LOG_USERSPACE=" + p.inside(p.file(t, log.String()))},
		"/usr/lib/systemd/systemd-pcrlock", "make-policy", "--components="+p.inside(filepath.Join(p.dir, "components")), "--pcr=7", "--pcr=11", "--pcr=12",
		"--policy="+p.inside(policyFile), "--recovery-pin=no")
	if out, err := outputWithin(t, cmd); err != nil {
		t.Fatalf("systemd-pcrlock: %v\n%s", err, out)
	}
	return policyFile
}

// measure extends PCR 11 and PCR 7 from zero.
func measure(swtpm *testenv.TPM, kernel, db string) {
	k, d := sha256.Sum256([]byte(kernel)), sha256.Sum256([]byte(db))
	swtpm.Extend(11, "sha256", k[:])
	swtpm.Extend(7, "sha256", d[:])
}

// TestPredictedValues goes through every combination that systemd-pcrlock
// predicted, with tokens of both sides, and one that it did not.
func TestPredictedValues(t *testing.T) {
	t.Parallel()
	p := systemd257(t)
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	file := predict(t, p, swtpm)
	h := handlerFor(t, swtpm.Device())
	h.PCRLock = new(file)
	lock, err := h.loadPCRLock()
	if err != nil || len(lock.Allowed[11]) != 3 || len(lock.Allowed[7]) != 2 || len(lock.Allowed[12]) != 1 {
		t.Fatalf("%+v, %v", lock, err)
	}
	ours, theirs := p.volume(t), p.volume(t)
	put(t, p, ours, enrolled(t, h))
	if out, err := outputWithin(t, p.command([]string{"PASSWORD=hunter2"}, "systemd-cryptenroll", "--tpm2-device="+swtpm.Device(), "--tpm2-pcrs=",
		"--tpm2-pcrlock="+p.inside(file), p.inside(theirs))); err != nil {
		t.Fatalf("systemd does not enrol: %v\n%s", err, out)
	}
	for _, kernel := range []string{"kernel-a", "kernel-b", "kernel-c"} {
		for _, db := range []string{"db-d", "db-e"} {
			swtpm.Reset()
			measure(swtpm, kernel, db)
			for name, image := range map[string]string{"ours": ours, "theirs": theirs} {
				if err := unlockVolume(t, h, image); err != nil {
					t.Errorf("%s, %s, %s: %v", name, kernel, db, err)
				}
			}
		}
	}
	if err := p.unseals(t, swtpm, ours, "", "tpm2-pcrlock="+p.inside(file)); err != nil {
		t.Errorf("systemd does not unseal ours: %v", err)
	}
	swtpm.Reset()
	measure(swtpm, "kernel-x", "db-d")
	err = unlockVolume(t, h, ours)
	pe, ok := errors.AsType[*tokens.PolicyError](err)
	if !ok || !slices.Equal(numbers(pe), []int{11}) || !strings.Contains(pe.Detail, "did not predict") {
		t.Errorf("an unpredicted kernel: %v", err)
	}
}

func TestPCRLockFileForAnotherIndex(t *testing.T) {
	t.Parallel()
	swtpm := fixtureTPM(t)
	f := fixtureNamed(t, "systemd257-tpm2-pcrlock")
	var m map[string]json.RawMessage
	if err := json.Unmarshal(readTestFile(t, "testdata/pcrlock.json"), &m); err != nil {
		t.Fatal(err)
	}
	lock, err := policy.ParsePCRLock(readTestFile(t, "testdata/pcrlock.json"))
	if err != nil {
		t.Fatal(err)
	}
	other := *lock.NVIndex
	other.Handle++
	other.Public = slices.Clone(other.Public)
	other.Public[3]++
	other.Name = chip.ObjectName(other.Public)
	m["nvIndex"] = json.RawMessage(fmt.Sprint(uint32(other.Handle)))
	m["nvHandle"] = json.RawMessage(`"` + base64.StdEncoding.EncodeToString(other.Bytes(chip.ResourceNV)) + `"`)
	text, _ := json.Marshal(m)
	path := filepath.Join(t.TempDir(), "pcrlock.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	h := handlerFor(t, swtpm.Device())
	h.PCRLock = new(path)
	_, err = unlockToken(t, h, asToken(0, f.Token))
	if !errors.Is(err, tokens.ErrPolicy) || !strings.Contains(err.Error(), "0x1a6a70d") || !strings.Contains(err.Error(), "0x1a6a70c") {
		t.Errorf("%v, want both indices", err)
	}
	// An index that the TPM does not have: the token says it is the right one.
	raw := json.RawMessage(changed(t, f.Token, memberPCRLockNV, string(m["nvHandle"])))
	if _, err := unlockToken(t, h, asToken(0, raw)); !errors.Is(err, tokens.ErrPolicy) || !strings.Contains(err.Error(), "no NV index 0x1a6a70d") {
		t.Errorf("%v, want that there is no such index", err)
	}
	h.PCRLock = new("")
	if _, err := unlockToken(t, h, asToken(0, f.Token)); !errors.Is(err, tokens.ErrPolicy) || !strings.Contains(err.Error(), "was not found") {
		t.Errorf("without a file: %v", err)
	}
}

func TestMalformedPCRLockFiles(t *testing.T) {
	t.Parallel()
	good := string(readTestFile(t, "testdata/pcrlock.json"))
	zero := strings.Repeat("00", 32)
	for name, c := range map[string]struct{ member, value, want string }{
		"no bank":         {"pcrBank", ``, `"pcrBank"`},
		"unknown bank":    {"pcrBank", `"md5"`, `"pcrBank"`},
		"no values":       {"pcrValues", ``, `"pcrValues"`},
		"values no list":  {"pcrValues", `5`, `"pcrValues"`},
		"PCR 24":          {"pcrValues", `[{"pcr":24,"values":["` + zero + `"]}]`, `"pcr"`},
		"PCR twice":       {"pcrValues", `[{"pcr":7,"values":["` + zero + `"]},{"pcr":7,"values":["` + zero + `"]}]`, `"pcrValues"`},
		"no value":        {"pcrValues", `[{"pcr":7,"values":[]}]`, `"values"`},
		"nine values":     {"pcrValues", `[{"pcr":7,"values":["` + strings.Repeat(zero+`","`, 8) + zero + `"]}]`, `"values"`},
		"short value":     {"pcrValues", `[{"pcr":7,"values":["00"]}]`, `"values"`},
		"index differs":   {"nvIndex", `5`, `"nvIndex"`},
		"index a text":    {"nvIndex", `"x"`, `"nvIndex"`},
		"no handle":       {"nvHandle", ``, `"nvHandle"`},
		"handle is a key": {"nvHandle", `"gQAAAQ=="`, `"nvHandle"`},
		"no SRK":          {"srkHandle", ``, `"srkHandle"`},
	} {
		if _, err := policy.ParsePCRLock([]byte(changed(t, json.RawMessage(good), c.member, c.value))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
