package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// log is that of a machine that was started from a disk.
const log = "../../eventlog/testdata/ubuntu-5.11.0-1008.bin"

const logFile = "sys/kernel/security/tpm0/binary_bios_measurements"

func put(t *testing.T, root, path string, text []byte) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// machine is a folder that looks like a machine.
func machine(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, logFile, text)
	put(t, root, "boot/efi/EFI/ubuntu/shimx64.efi", nil)
	put(t, root, "boot/grub/grub.cfg", nil)
	put(t, root, "proc/sys/kernel/osrelease", []byte("5.11.0-1008\n"))
	return root
}

func TestMachineIsGatheredFromAFolder(t *testing.T) {
	t.Parallel()
	root := machine(t)
	h, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m := h.System.Machine
	if h.ESP != filepath.Join(root, "boot/efi") || h.Boot != root || m.Kernel != "5.11.0-1008" || len(m.Events) == 0 || len(h.System.Others) != 1 {
		t.Errorf("ESP %s, boot %s, kernel %q, %d events", h.ESP, h.Boot, m.Kernel, len(m.Events))
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	root := machine(t)
	if err := os.RemoveAll(filepath.Join(root, "boot/efi")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Root: root}); !errors.Is(err, ErrNoESP) {
		t.Errorf("without ESP: %v", err)
	}
	if _, err := Open(Options{Root: t.TempDir()}); !errors.Is(err, ErrNoLog) {
		t.Errorf("without log: %v", err)
	}
	put(t, root, logFile, []byte("no log"))
	if _, err := Open(Options{Root: root}); err == nil {
		t.Error("a log that is none was taken")
	}
}

// TestESPOfAnotherDiskIsRefused: a second disk may have the same files.
func TestESPOfAnotherDiskIsRefused(t *testing.T) {
	t.Parallel()
	root := machine(t)
	h, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	logged := h.partition()
	if logged == "" {
		t.Fatal("the log names no partition")
	}
	dev := device(h.ESP)
	file := fmt.Sprintf("sys/dev/block/%d:%d/uevent", unix.Major(dev), unix.Minor(dev))
	put(t, root, file, []byte("MAJOR=8\nPARTUUID="+strings.ToUpper(logged)+"\n"))
	same, err := Open(Options{Root: root})
	if err != nil {
		t.Fatalf("the right one: %v", err)
	}
	_ = same.Close()
	put(t, root, file, []byte("PARTUUID=11111111-2222-3333-4444-555555555555\n"))
	if _, err := Open(Options{Root: root}); !errors.Is(err, ErrOtherESP) {
		t.Errorf("another: %v", err)
	}
}

// TestESPIsTheOneThatWasStarted: of two in the usual places it is the one that the log
// names, and one that is mounted elsewhere is found.
func TestESPIsTheOneThatWasStarted(t *testing.T) {
	t.Parallel()
	root := machine(t)
	h, err := Open(Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	logged := strings.ToUpper(h.partition())
	for _, place := range []string{"efi", "mnt/my esp"} {
		// Real file systems: places are told apart by their device numbers.
		folder := filepath.Join(root, place)
		if err := errors.Join(os.MkdirAll(folder, 0o755), unix.Mount("other", folder, "tmpfs", 0, "")); err != nil {
			testenv.NotApplicable(t, "nothing can be mounted: "+err.Error())
		}
		t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) })
		put(t, root, place+"/EFI/BOOT/BOOTX64.EFI", nil)
	}
	elsewhere := number(filepath.Join(root, "mnt/my esp"))
	guids := func(efi, bootEFI string) {
		put(t, root, "sys/dev/block/"+number(filepath.Join(root, "efi"))+"/uevent", []byte("PARTUUID="+efi+"\n"))
		put(t, root, "sys/dev/block/"+number(filepath.Join(root, "boot/efi"))+"/uevent", []byte("PARTUUID="+bootEFI+"\n"))
	}
	const other = "11111111-2222-3333-4444-555555555555"
	for _, c := range []struct{ name, efi, bootEFI, mounts, want string }{
		{"the first place", logged, other, "", "efi"},
		{"the second place", other, logged, "", "boot/efi"},
		{"elsewhere", other, other, "1 2 " + elsewhere + " / /mnt/my\\040esp rw - vfat /dev/sdb1 rw\n", "mnt/my esp"},
		{"elsewhere, as a part of it", other, other, "1 2 " + elsewhere + " /sub /mnt/my\\040esp rw - vfat /dev/sdb1 rw\n", ""},
		{"nowhere", other, other, "nonsense\n1 2 7:8 / /mnt/my\\040esp rw\n", ""},
	} {
		guids(c.efi, c.bootEFI)
		put(t, root, "sys/dev/block/"+elsewhere+"/uevent", []byte("PARTUUID="+logged+"\n"))
		put(t, root, "proc/self/mountinfo", []byte(c.mounts))
		h, err := Open(Options{Root: root})
		if c.want == "" {
			if !errors.Is(err, ErrOtherESP) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if h.ESP != filepath.Join(root, c.want) {
			t.Errorf("%s: %s", c.name, h.ESP)
		}
		_ = h.Close()
	}
}
