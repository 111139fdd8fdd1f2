package e2e

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// What cryptsetup-unit may cost, as parts of what systemd-cryptsetup costs in the
// same guest, and by itself.
const (
	keyFileShare = 0.53
	tpmShare     = 0.26
	startLimit   = 8 * time.Millisecond // one instruction takes a nanosecond
)

// systemdLibraries are opened by systemd-cryptsetup when it runs. Without the last
// one it does not find the token.
var systemdLibraries = []string{"libtss2-esys.so.0", "libtss2-mu.so.0", "libtss2-rc.so.0", "libtss2-tcti-device.so.0",
	"libfido2.so.1", "libp11-kit.so.0", "cryptsetup/libcryptsetup-token-systemd-tpm2.so"}

// BenchmarkAttach compares the CPU time of the two programs by counting
// instructions, which repeats to a part in a thousand whatever the machine does.
func BenchmarkAttach(b *testing.B) {
	s, tree := makeSample(b), testenv.Systemd257(b)
	tpm := testenv.StartTPM(b, testenv.TPMOptions{TCP: true})
	separator := sha256.Sum256([]byte{0xff, 0xff, 0xff, 0xff})
	tpm.Extend(7, "sha256", separator[:])
	sealed := copyOf(b, s.image)
	enroll(b, sealed, nil, "--tpm2-pcrs=7", "--tpm2-device="+tpm.Device())
	tpm.Shutdown()
	tpm.Stop()
	programs := []string{"/usr/bin/systemd-cryptsetup"}
	for _, l := range systemdLibraries {
		programs = append(programs, "/usr/lib/x86_64-linux-gnu/"+l)
	}
	vm := Boot(b, Config{CountInstructions: true, TPM: tpm.StateDir(), Root: tree.Root, Programs: programs, Disks: []Disk{{Path: copyOf(b, s.image)}, {Path: sealed}}})
	u := newUnit(b, vm)
	u.path = "/run/cryptsetup-unit" // where the pages of a program cost as little as those of the peer
	vm.Shell(b, "cp /host/*-cryptsetup-unit "+u.path)
	vm.WriteFile(b, "/run/test-key", []byte(passphrase), 0o600)
	vm.Run(b, "modprobe", "-a", "dm-crypt", "xts", "aesni-intel")
	cost := func(program string, args ...string) time.Duration {
		var list []time.Duration
		for range 3 {
			list = append(list, vm.Run(b, append([]string{program}, args...)...).CPU())
			if args[0] == "attach" {
				vm.Run(b, "dmsetup", "remove", "vol")
			}
		}
		slices.Sort(list)
		return list[1]
	}
	const theirs = "/usr/bin/systemd-cryptsetup"
	for _, bb := range []struct {
		name  string
		args  []string
		share float64
	}{
		{"keyfile", []string{"attach", "vol", "/dev/vda", "/run/test-key", "luks"}, keyFileShare},
		{"tpm2", []string{"attach", "vol", "/dev/vdb", "-", "tpm2-device=auto,headless"}, tpmShare},
	} {
		ours, peer := cost(u.path, bb.args...), cost(theirs, bb.args...)
		share := float64(ours) / float64(peer)
		b.ReportMetric(share, bb.name+"/peer")
		b.Logf("%s: %v, systemd-cryptsetup 257 %v: %.2f", bb.name, ours, peer, share)
		if share > bb.share {
			b.Errorf("%s: more than %.2f", bb.name, bb.share)
		}
	}
	start := cost(u.path, "--version")
	b.ReportMetric(start.Seconds()*1000, "start-ms")
	b.ReportMetric(0, "ns/op") // of the emulation: of no use
	b.Logf("start: %v, systemd-cryptsetup 257 %v", start, cost(theirs, "--version"))
	if start > startLimit {
		b.Errorf("start: more than %v", startLimit)
	}
}

// BenchmarkAttachAll attaches 1, 4 and 16 volumes in one call and compares with
// systemd-cryptsetup, a call for each. "growth" is what a volume between the fourth and
// the sixteenth costs, as part of one between the first and the fourth.
func BenchmarkAttachAll(b *testing.B) {
	s, tree := makeSample(b), testenv.Systemd257(b)
	c := Config{CountInstructions: true, Root: tree.Root, Programs: []string{"/usr/bin/systemd-cryptsetup"}}
	for _, l := range systemdLibraries {
		c.Programs = append(c.Programs, "/usr/lib/x86_64-linux-gnu/"+l)
	}
	for i := range 16 {
		image := copyOf(b, s.image)
		testenv.Run(b, "cryptsetup", "luksUUID", "-q", "--uuid", fmt.Sprintf("5a1c0000-0000-4000-8000-%012d", i), image)
		c.Disks = append(c.Disks, Disk{Path: image})
	}
	vm := Boot(b, c)
	u := newUnit(b, vm)
	vm.WriteFile(b, "/run/test-key", []byte(passphrase), 0o600)
	vm.Run(b, "modprobe", "-a", "dm-crypt", "xts", "aesni-intel")
	ours := map[int]time.Duration{}
	for _, count := range []int{1, 1, 4, 16} { // the first one reads the program from the disk
		var table strings.Builder
		var peer time.Duration
		for i := range count {
			fmt.Fprintf(&table, "v%d /dev/vd%c /run/test-key luks\n", i, 'a'+i)
			peer += vm.Run(b, "/usr/bin/systemd-cryptsetup", "attach", fmt.Sprintf("v%d", i), fmt.Sprintf("/dev/vd%c", 'a'+i), "/run/test-key", "luks").CPU()
		}
		vm.Run(b, "dmsetup", "remove_all")
		vm.WriteFile(b, "/run/crypttab", []byte(table.String()), 0o600)
		ours[count] = vm.Run(b, u.path, "attach-all", "--crypttab=/run/crypttab").CPU()
		vm.Run(b, "dmsetup", "remove_all")
		b.ReportMetric(float64(ours[count])/float64(peer), fmt.Sprintf("%d/peer", count))
		b.Logf("%d volumes: %v, systemd-cryptsetup 257 %v", count, ours[count], peer)
	}
	b.ReportMetric(float64(ours[16]-ours[4])/12/(float64(ours[4]-ours[1])/3), "growth")
	b.ReportMetric(0, "ns/op") // of the emulation: of no use
}
