package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
)

// TestImageOnTheExtendedBootPartition has systemd-boot start a unified kernel image from
// there, with an addon beside it and another one on its partition: what they cause is
// explained, and predicted before one more is booted.
func TestImageOnTheExtendedBootPartition(t *testing.T) {
	m := newUpdating(t, false, true)
	image := m.entry("debian-1", 1, "first", "quiet")
	own := "/EFI/Linux/debian-1.efi.extra.d/"
	image[own+"one.addon.efi"] = m.addon("one", "lab=1")
	image["/loader/addons/all.addon.efi"] = m.addon("all", "lab=2")
	esp := map[string]string{"/EFI/BOOT/BOOTX64.EFI": m.loader("257"), "/loader/loader.conf": m.path("loader.conf"),
		// Not where the image is: nobody looks at it.
		own + "not.addon.efi": m.addon("not", "lab=3")}
	// One of refind's, say ext4_x64.efi.
	if driver := os.Getenv("LUKSMITH_TEST_DRIVER"); driver != "" {
		esp["/EFI/systemd/drivers/"+filepath.Base(driver)] = driver
	}
	makeDiskWithBoot(t, m.path("disk"), esp, image)
	m.start(false, "")
	m.bootPartition()
	p := m.predict("")
	if got := m.Shell(t, "cat /proc/cmdline").Stdout; !strings.Contains(got, "lab=2 lab=1") || strings.Contains(got, "lab=3") {
		t.Errorf("command line: %s", got)
	}
	for _, x := range p.Running.PCRs {
		if !x.Explained {
			t.Errorf("PCR %d: %s", x.PCR, x.Reason)
		}
	}
	m.Run(t, m.cryptenroll, "follow", "--tpm2-pcrs=4+7+9+12", "--tpm2-with-pin=no", "--unlock-key-file="+m.Push(t, m.path("volume.key")), volume)
	m.Shell(t, "cp "+m.Push(t, m.addon("two", "lab=4"))+" /boot"+own+"two.addon.efi")
	p = m.predict("4+7+9+12")
	m.follow(0)
	m.Shell(t, "umount /boot")
	m.restart()
	m.start(true, "")
	for _, x := range p.Next[0].PCRs {
		is := strings.ToLower(strings.TrimSpace(m.Shell(t, fmt.Sprintf("cat /sys/class/tpm/tpm0/pcr-sha256/%d", x.PCR)).Stdout))
		if x.Grade != "exact" || x.Value != is || x.Moved != (x.PCR != 7) {
			t.Errorf("%+v, and it is %s", x, is)
		}
	}
}

// addon makes an addon with a command line.
func (m *updating) addon(name, cmdline string) string {
	m.t.Helper()
	stub, err := os.ReadFile(filepath.Join(bootPrograms(m.t, "257"), "addonx64.efi.stub"))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.file(name+".addon.efi", petest.Extend(stub, petest.Section{Name: ".cmdline", Data: []byte(cmdline)}))
}

// bootPartition mounts the extended boot partition.
func (m *updating) bootPartition() {
	m.t.Helper()
	m.Shell(m.t, "mkdir -p /boot; mount -t vfat /dev/vda2 /boot")
}

// predicted is what the test looks at of predict --json.
type predicted struct {
	Running struct {
		PCRs []struct {
			PCR       int
			Explained bool
			Reason    string
		}
	}
	Next []struct {
		PCRs []struct {
			PCR          int
			Grade, Value string
			Moved        bool
		}
	}
}

func (m *updating) predict(pcrs string) (p predicted) {
	m.t.Helper()
	args := []string{m.cryptenroll, "predict", "--json=short"}
	if pcrs != "" {
		args = append(args, "--tpm2-pcrs="+pcrs)
	}
	r := m.Try(m.t, args...)
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil || r.Status != 0 || len(p.Next) != 1 {
		m.t.Fatalf("predict: %d %v\n%s%s", r.Status, err, r.Stdout, r.Stderr)
	}
	return p
}

// makeDiskWithBoot makes a disk with an EFI system partition and an extended boot
// partition (Boot Loader Specification, XBOOTLDR).
func makeDiskWithBoot(t testing.TB, disk string, esp, boot map[string]string) {
	t.Helper()
	testenv.Need(t, "sfdisk", "mkfs.vfat", "mcopy", "mmd")
	const script = `rm -f "$0"; truncate -s 300M "$0"
		printf 'label: gpt\nstart=2048, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp\nstart=133120, type=BC13C2FF-59E6-4262-A352-B275FD6F7172, name=boot\n' | sfdisk -q "$0"
		mkfs.vfat -F 32 -s 1 --offset 2048 "$0" $((64 * 1024)) >/dev/null
		mkfs.vfat -F 32 -s 1 --offset 133120 "$0" $((230 * 1024)) >/dev/null`
	testenv.Run(t, "sh", "-euc", script, disk)
	fillFAT(t, disk+"@@1M", esp)
	fillFAT(t, disk+"@@65M", boot)
}
