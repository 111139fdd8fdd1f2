package boottest_test

import (
	"path/filepath"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/host"
)

// TestMachineIsExplained: what Start writes is a boot that its files account for.
func TestMachineIsExplained(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	disk := filepath.Join(root, boottest.ESP)
	image := petest.Image("257", petest.Kernel(boottest.Kernel), []byte("initrd"), "quiet")
	for name, content := range map[string][]byte{"EFI/BOOT/BOOTX64.EFI": petest.Loader("257"), "EFI/Linux/a.efi": image, "loader/loader.conf": nil} {
		if err := boottest.Write(filepath.Join(disk, name), content); err != nil {
			t.Fatal(err)
		}
	}
	b := boottest.Load(t, "../../../tokens/tpm2/bootchain/testdata", "uki")["base"]
	events, err := boottest.Start(b, root, "/EFI/Linux/a.efi")
	if err != nil || len(events) == 0 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	h, err := host.Open(host.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	got, err := h.System.Postdict()
	if err != nil {
		t.Fatal(err)
	}
	for pcr, x := range got.PCRs {
		if x.Reason != "" {
			t.Errorf("PCR %d: %s; %q", pcr, x.Reason, got.Events[pcr])
		}
	}
}
