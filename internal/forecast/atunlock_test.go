package forecast

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootrecord"
	"luksmith/tokens/tpm2/eventlog"
)

const volume = "11111111-2222-4333-8444-555555555555"

// running is a machine that was started, and the values that its TPM has once the
// system is up.
func running(t *testing.T) (root string, left, now map[int][]byte) {
	t.Helper()
	root = t.TempDir()
	disk := filepath.Join(root, boottest.ESP)
	image := petest.Image("257", petest.Kernel(boottest.Kernel), []byte("initrd"), "quiet")
	for name, content := range map[string][]byte{"EFI/BOOT/BOOTX64.EFI": petest.Loader("257"), "EFI/Linux/a.efi": image} {
		if err := boottest.Write(filepath.Join(disk, name), content); err != nil {
			t.Fatal(err)
		}
	}
	events, err := boottest.Start(boottest.Load(t, boots, "uki")["base"], root, "/EFI/Linux/a.efi")
	if err != nil {
		t.Fatal(err)
	}
	left, now = map[int][]byte{}, map[int][]byte{}
	for _, n := range chain.Predictable() {
		left[n] = eventlog.Replay(events, chain.Bank, n)
		now[n] = left[n]
	}
	now[11] = eventlog.After(chain.Bank, left[11], []string{"enter-initrd", "leave-initrd", "sysinit", "ready"})
	now[12] = eventlog.After(chain.Bank, left[12], []string{"somebody"})
	return root, left, now
}

func TestValuesAtUnlockAreExplained(t *testing.T) {
	t.Parallel()
	root, left, now := running(t)
	got := AtUnlock(root, volume, []int{11, 12, 13, 15}, func() (map[int][]byte, error) { return now, nil })
	if want := eventlog.After(chain.Bank, left[11], []string{"enter-initrd"}); !bytes.Equal(got[11], want) || !bytes.Equal(got[13], make([]byte, 32)) {
		t.Errorf("%x, want %x", got, want)
	}
	if got[12] != nil || got[15] != nil {
		t.Errorf("nobody knows these: %x", got)
	}
	if got := AtUnlock(root, volume, []int{11}, func() (map[int][]byte, error) { return nil, errors.New("no TPM") }); got[11] != nil {
		t.Errorf("without TPM: %x", got)
	}
}

func TestValuesAtUnlockAreRecorded(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const id = "0c5f0d50-3d5c-4f0c-9c68-4f9f4f6a9a01"
	if err := boottest.Write(filepath.Join(root, "proc/sys/kernel/random/boot_id"), []byte(id+"\n")); err != nil {
		t.Fatal(err)
	}
	value := func(b byte) bootrecord.Digest { return bytes.Repeat([]byte{b}, 32) }
	record := &bootrecord.Boot{ID: id, Time: time.Unix(1, 0), Unlocks: []bootrecord.Unlock{
		{Time: time.Unix(1, 0), Volume: "22222222-2222-4333-8444-555555555555", Bank: chain.Bank, PCRs: bootrecord.PCRs{11: value(1), 12: value(2), 15: value(3)}},
		{Time: time.Unix(2, 0), Volume: volume, Bank: chain.Bank, PCRs: bootrecord.PCRs{11: value(4)}},
	}}
	if err := bootrecord.State(root).Write(record); err != nil {
		t.Fatal(err)
	}
	nothing := func() (map[int][]byte, error) { return nil, errors.New("not needed") }
	got := AtUnlock(root, volume, []int{11, 12, 15}, nothing)
	if !bytes.Equal(got[11], value(4)) || !bytes.Equal(got[12], value(2)) || got[15] != nil {
		t.Errorf("%x", got)
	}
}
