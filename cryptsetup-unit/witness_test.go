package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootrecord"
)

const testBoot = "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a01"

// tpmBench is a machine with a boot identity and a TPM.
func tpmBench(t *testing.T) (*bench, *testenv.TPM) {
	t.Helper()
	b := newBench(t)
	b.newHandlers = func() tokens.Set { return tokens.Set{&tpm2.Handler{}} }
	path := filepath.Join(b.root, "proc/sys/kernel/random/boot_id")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path, []byte(testBoot+"\n"), 0o600)
	return b, testenv.StartTPM(t, testenv.TPMOptions{})
}

// enrollTPM adds a token for the present value of PCR 7 and returns its passphrase.
func enrollTPM(t *testing.T, v *luks2test.Volume, swtpm *testenv.TPM, label string) string {
	t.Helper()
	h := &tpm2.Handler{Paths: tpm2.Paths{Root: t.TempDir()}}
	for _, o := range h.Options() {
		value := map[string]string{"tpm2-device": swtpm.Device(), "tpm2-pcrs": "7:sha256"}[o.Name]
		if value == "" || o.Place&tokens.Enrolling == 0 {
			continue
		}
		if err := o.Set(value); err != nil {
			t.Fatal(err)
		}
	}
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Label: label, Compat: 257}, tokentest.NewUI(t))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	passphrase := string(e.Passphrase.Bytes())
	v.Enroll(t, passphrase, luks2.Token{Type: h.Type(), Raw: e.Token})
	return passphrase
}

func readRecord(t *testing.T, root string) *bootrecord.Boot {
	t.Helper()
	r, err := bootrecord.Runtime(root).Read(testBoot)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUnlockByTPMIsRecorded(t *testing.T) {
	t.Parallel()
	b, swtpm := tpmBench(t)
	v := newVolume(t)
	secrets := []string{rightPassphrase, strings.TrimSpace(rightKey), enrollTPM(t, v, swtpm, "old")}
	swtpm.Extend(7, "sha256", make([]byte, 32))
	secrets = append(secrets, enrollTPM(t, v, swtpm, "new"))
	options := "tpm2-device=" + swtpm.Device() + ",password-cache=no"
	if _, err := b.run(t, "vol", v.Path, "-", options); err != nil {
		t.Fatal(err)
	}
	swtpm.Extend(7, "sha256", make([]byte, 32))
	b.agent(t, "+"+rightPassphrase)
	if _, err := b.run(t, "vol2", v.Path, "-", options); err != nil {
		t.Fatal(err)
	}
	r := readRecord(t, b.root)
	if len(r.Unlocks) != 2 || r.Kernel == "" || r.Chain != nil {
		t.Fatalf("%+v", r)
	}
	first, second := r.Unlocks[0], r.Unlocks[1]
	if first.Volume != v.UUID || first.Name != "vol" || first.Bank != "sha256" || len(first.PCRs) != 8 || len(first.PCRs[15]) != 32 {
		t.Errorf("%+v", first)
	}
	if o := first.Opened; o == nil || o.By != "tpm2" || *o.Token != 1 || *o.Keyslot != 3 || o.Label != "new" || len(o.Policy) != 32 {
		t.Errorf("opened: %+v", o)
	}
	if f := first.Failed; len(f) != 1 || *f[0].Token != 0 || *f[0].Keyslot != 2 || f[0].Label != "old" || f[0].Exit != cli.ExitPolicy || !slices.Equal(f[0].Differ, []int{7}) {
		t.Errorf("failed: %+v", f)
	}
	if o := second.Opened; o == nil || o.By != "passphrase" || *o.Keyslot != 0 || o.Token != nil || len(second.Failed) != 2 {
		t.Errorf("second: %+v, %+v", o, second.Failed)
	}
	if reflect.DeepEqual(first.PCRs[7], second.PCRs[7]) || !reflect.DeepEqual(first.PCRs[4], second.PCRs[4]) {
		t.Errorf("values: %x, %x", first.PCRs, second.PCRs)
	}
	text, _ := os.ReadFile(filepath.Join(b.root, "run/luksmith/boots", testBoot+".json"))
	for _, s := range secrets {
		if strings.Contains(string(text), s) {
			t.Error("the record holds a secret")
		}
	}
}

// TestVolumeThatStayedClosedIsRecorded: what failed matters most then.
func TestVolumeThatStayedClosedIsRecorded(t *testing.T) {
	t.Parallel()
	b, swtpm := tpmBench(t)
	v := newVolume(t)
	enrollTPM(t, v, swtpm, "x")
	swtpm.Extend(7, "sha256", make([]byte, 32))
	_, err := b.run(t, "vol", v.Path, "-", "luksmith-token-only,tpm2-device="+swtpm.Device())
	if !errors.Is(err, tokens.ErrPolicy) {
		t.Fatal(err)
	}
	u := readRecord(t, b.root).Unlocks
	if len(u) != 1 || u[0].Opened != nil || len(u[0].PCRs) != 8 || len(u[0].Failed) != 1 || u[0].Failed[0].Exit != cli.ExitPolicy {
		t.Errorf("%+v", u)
	}
}

// TestAbsentTPMIsRecorded: there are no values then, but what opened is known.
func TestAbsentTPMIsRecorded(t *testing.T) {
	t.Parallel()
	b, swtpm := tpmBench(t)
	v := newVolume(t)
	enrollTPM(t, v, swtpm, "x")
	swtpm.Stop()
	if _, err := b.run(t, "vol", v.Path, b.file(t, "k", rightKey), "tpm2-device="+swtpm.Device()+",token-timeout=10ms"); err != nil {
		t.Fatal(err)
	}
	u := readRecord(t, b.root).Unlocks
	if len(u) != 1 || u[0].Opened == nil || u[0].Opened.By != "key file" || u[0].PCRs != nil {
		t.Errorf("%+v", u)
	}
}

func TestVolumeWithoutTPMIsNotRecorded(t *testing.T) {
	t.Parallel()
	b, _ := tpmBench(t)
	if _, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := bootrecord.Runtime(b.root).Read(testBoot); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestRecordThatCannotBeWrittenFailsNothing: it only stands in the report.
func TestRecordThatCannotBeWrittenFailsNothing(t *testing.T) {
	t.Parallel()
	b, swtpm := tpmBench(t)
	v := newVolume(t)
	enrollTPM(t, v, swtpm, "x")
	b.file(t, "run/luksmith/boots", "in the way")
	r, err := b.run(t, "vol", v.Path, "-", "tpm2-device="+swtpm.Device())
	if err != nil || r.Result != resultAttached || len(b.mapped) != 1 || strings.Contains(b.messages.String(), "record") {
		t.Errorf("%v, %s", err, b.messages)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "nothing was added to the record of this boot") {
		t.Errorf("%q", r.Warnings)
	}
}
