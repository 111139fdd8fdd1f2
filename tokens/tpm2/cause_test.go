package tpm2

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/eventlog"
)

// started is a real boot of the machine: its log, the entry that was started, and the
// values in the TPM.
func started(t *testing.T, swtpm *testenv.TPM, h *Handler, b *boottest.Boot, entry string, pcrs []int) {
	t.Helper()
	write(t, h.Paths.firmwareLog(), b.Files["eventlog.bin"])
	write(t, h.Paths.join(variableEntry), boottest.Variable([]byte(utf16Of(entry))).Data)
	swtpm.Reset()
	for _, e := range b.Events {
		if slices.Contains(pcrs, e.PCR) && len(eventlog.Of([]eventlog.Event{e}, e.PCR)) > 0 {
			swtpm.Extend(e.PCR, "sha256", e.Digests["sha256"])
		}
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func utf16Of(s string) (text string) {
	for _, r := range s + "\x00" {
		text += string([]byte{byte(r), 0})
	}
	return text
}

// TestCauseNamesFileAndEntry enrols in one real boot and unlocks in the next.
func TestCauseNamesFileAndEntry(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for _, c := range []struct{ name, chain, was, is, pcrs, want string }{
		{"initrd", "type1", "base", "initrd", "4+9", "the initrd of Lab 1 changed after it was enrolled"},
		{"command line", "type1", "initrd", "cmdline", "9+12", "the kernel command line of Lab 1 changed after it was enrolled"},
		{"image", "uki", "base", "initrd", "4+7", "the initrd of Lab 1 changed after it was enrolled"},
		{"image, PCR 11", "uki", "base", "initrd", "4+11", "the initrd of Lab 1 changed after it was enrolled"},
		{"loader", "uki", "kernel", "sdboot252", "4+7", "/EFI/BOOT/BOOTX64.EFI changed after it was enrolled"},
		{"dbx", "shim", "shim", "dbx", "7", "the list of revoked programs (dbx) changed after it was enrolled"},
		{"GRUB", "grub", "base", "initrd", "8+9", "grub.cfg, /EFI/debian/grub.cfg, /lab/initrd2, the initrd changed after it was enrolled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			boots := boottest.Load(t, "bootchain/testdata", c.chain)
			h := handlerFor(t, swtpm.Device())
			h.PCRs = mustPCRs(t, c.pcrs)
			pcrs := h.PCRs.Set.List()
			h.PCRsAsTheyAre = true
			h.EntryTitle = func(id string) string { return map[string]string{"lab": "Lab 1"}[id] }
			started(t, swtpm, h, boots[c.was], "lab.conf", pcrs)
			e := enrolled(t, h)
			started(t, swtpm, h, boots[c.is], "lab+2-1.conf", pcrs)
			pe := policyError(t, h, e.Token)
			if pe.Cause != c.want {
				t.Errorf("%q, want %q", pe.Cause, c.want)
			}
			// Without /var, as in an initrd, PCR 4 tells of the image as a whole.
			if err := os.RemoveAll(h.Paths.state()); err != nil {
				t.Fatal(err)
			}
			if pe := policyError(t, h, e.Token); c.name == "image" && pe.Cause != "/EFI/Linux/lab.efi changed after it was enrolled" {
				t.Errorf("without the events: %q", pe.Cause)
			}
		})
	}
}

// TestCauseOfKeysForTheNextBoot: they were made before the machine was in their state.
func TestCauseOfKeysForTheNextBoot(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	boots := boottest.Load(t, "bootchain/testdata", "type1")
	for entry, want := range map[string]string{
		"lab":   "the initrd of lab changed after it was enrolled",
		"other": "it is for the boot entry other, and lab was started",
	} {
		h := handlerFor(t, swtpm.Device())
		started(t, swtpm, h, boots["kernel"], "lab.conf", []int{4, 9})
		next, values := boots["initrd"], map[int][]byte{}
		for _, n := range []int{4, 9} {
			values[n] = next.PCRs[n]
		}
		list, err := h.SealForBoots(t.Context(), &SealRequest{Compat: 257, States: []BootState{{PCRs: values, Label: entry, Entry: BootEntry{ID: entry}, Events: next.Events}}}, tokens.Nobody{})
		if err != nil || len(list) != 1 {
			t.Fatalf("%d keys, %v", len(list), err)
		}
		started(t, swtpm, h, boots["base"], "lab.conf", []int{4, 9})
		if pe := policyError(t, h, list[0].Token); pe.Cause != want {
			t.Errorf("%q, want %q", pe.Cause, want)
		}
		list[0].Passphrase.Wipe()
	}
}

// TestCauseKnowsTheImageThatWasStarted: initrds of initramfs-tools do not show the
// variables of the boot loader.
func TestCauseKnowsTheImageThatWasStarted(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	boots := boottest.Load(t, "bootchain/testdata", "uki")
	h := handlerFor(t, swtpm.Device())
	started(t, swtpm, h, boots["base"], "lab.efi", []int{4})
	next := boots["initrd"]
	list, err := h.SealForBoots(t.Context(), &SealRequest{Compat: 257, States: []BootState{{PCRs: map[int][]byte{4: next.PCRs[4]}, Label: "other", Entry: BootEntry{ID: "other"}}}}, tokens.Nobody{})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d keys, %v", len(list), err)
	}
	defer list[0].Passphrase.Wipe()
	if err := os.Remove(h.Paths.join(variableEntry)); err != nil {
		t.Fatal(err)
	}
	const want = "it is for the boot entry other, and lab was started"
	if pe := policyError(t, h, list[0].Token); pe.Cause != want {
		t.Errorf("%q, want %q", pe.Cause, want)
	}
}

// TestCauseNamesWordsOfUserSpace: systemd extends PCRs by itself.
func TestCauseNamesWordsOfUserSpace(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, c := range map[string]struct {
		pcr           int
		before, after []string
		want          string
	}{
		"separator is new":  {4, nil, []string{eventlog.OSSeparator}, "the initrd extends os-separator now, as systemd 261 and later do, and did not when it was enrolled"},
		"separator is gone": {4, []string{eventlog.OSSeparator}, nil, ""},
		"running system":    {11, []string{"enter-initrd"}, []string{"enter-initrd", "leave-initrd", "sysinit", "ready"}, "it opens before the phase leave-initrd of the boot, which is over"},
		"somebody":          {4, nil, []string{"somebody"}, ""},
	} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs, h.PCRsAsTheyAre = mustPCRs(t, map[int]string{4: "4", 11: "11"}[c.pcr]), true
		say := func(words []string) {
			swtpm.Reset()
			for _, w := range words {
				sum := sha256.Sum256([]byte(w))
				swtpm.Extend(c.pcr, "sha256", sum[:])
			}
		}
		say(c.before)
		e := enrolled(t, h)
		say(c.after)
		if pe := policyError(t, h, e.Token); pe.Cause != c.want {
			t.Errorf("%s: %q, want %q", name, pe.Cause, c.want)
		}
	}
}
