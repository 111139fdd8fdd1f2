package e2e

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// What the commands may cost, as parts of what systemd's cost in the same guest, and
// by themselves.
const (
	keyFileShare = 0.53
	tpmShare     = 0.26
	listShare    = 0.40
	// One instruction takes a nanosecond.
	unitStart        = 4500 * time.Microsecond
	cryptenrollStart = 6 * time.Millisecond
)

// systemdLibraries are opened by systemd-cryptsetup when it runs. Without the last
// one it does not find the token.
var systemdLibraries = []string{"libtss2-esys.so.0", "libtss2-mu.so.0", "libtss2-rc.so.0", "libtss2-tcti-device.so.0",
	"libfido2.so.1", "libp11-kit.so.0", "cryptsetup/libcryptsetup-token-systemd-tpm2.so"}

// BenchmarkAttach compares the CPU time of the two programs by counting
// instructions, which repeats to a part in a thousand whatever the machine does.
func BenchmarkAttach(b *testing.B) {
	s, tree := makeSample(b), testenv.Systemd257(b)
	for _, peer := range []attachPeer{
		{name: "systemd 252", program: "/lib/systemd/systemd-cryptsetup"},
		{name: "systemd 257", root: tree.Root, program: "/usr/bin/systemd-cryptsetup", keyFileShare: keyFileShare, tpmShare: tpmShare},
	} {
		b.Run(peer.name, func(b *testing.B) { peer.compare(b, s) })
	}
}

// attachPeer is a program that attaches.
type attachPeer struct {
	name, root, program    string
	keyFileShare, tpmShare float64 // 0: nothing is promised
}

func (p *attachPeer) compare(b *testing.B, s *sample) {
	tpm := testenv.StartTPM(b, testenv.TPMOptions{TCP: true})
	separator := sha256.Sum256([]byte{0xff, 0xff, 0xff, 0xff})
	tpm.Extend(7, "sha256", separator[:])
	sealed := copyOf(b, s.image)
	enroll(b, sealed, nil, "--tpm2-pcrs=7", "--tpm2-device="+tpm.Device())
	tpm.Shutdown()
	tpm.Stop()
	programs := []string{p.program}
	for _, l := range systemdLibraries {
		programs = append(programs, "/usr/lib/x86_64-linux-gnu/"+l)
	}
	vm := Boot(b, Config{CountInstructions: true, TPM: tpm.StateDir(), Root: p.root, Programs: programs, Disks: []Disk{{Path: copyOf(b, s.image)}, {Path: sealed}}})
	unit := inMemory(b, vm, "./cryptsetup-unit")
	vm.WriteFile(b, "/run/test-key", []byte(passphrase), 0o600)
	vm.Run(b, "modprobe", "-a", "dm-crypt", "xts", "aesni-intel")
	cost := func(program string, args ...string) time.Duration {
		return medianCost(b, vm, func() { vm.Run(b, "dmsetup", "remove", "vol") }, append([]string{program}, args...)...)
	}
	for _, bb := range []struct {
		name  string
		args  []string
		share float64
	}{
		{"keyfile", []string{"attach", "vol", "/dev/vda", "/run/test-key", "luks"}, p.keyFileShare},
		{"tpm2", []string{"attach", "vol", "/dev/vdb", "-", "tpm2-device=auto,headless"}, p.tpmShare},
	} {
		ours, peer := cost(unit, bb.args...), cost(p.program, bb.args...)
		share := float64(ours) / float64(peer)
		b.ReportMetric(share, bb.name+"/peer")
		b.ReportMetric(ours.Seconds()*1000, bb.name+"-ms")
		b.ReportMetric(peer.Seconds()*1000, "peer-"+bb.name+"-ms")
		if bb.share > 0 && share > bb.share {
			b.Errorf("%s: %.3f, more than %.2f", bb.name, share, bb.share)
		}
	}
	b.ReportMetric(0, "ns/op") // of the emulation: of no use
}

// inMemory builds a command and puts it where its pages cost as little as those of the
// peers.
func inMemory(b *testing.B, vm *VM, pkg string) string {
	b.Helper()
	path := "/run/" + filepath.Base(pkg)
	vm.Shell(b, "cp "+vm.Program(b, pkg)+" "+path)
	return path
}

// medianCost is the CPU time of a command, the median of three runs; after follows each.
func medianCost(b *testing.B, vm *VM, after func(), args ...string) time.Duration {
	b.Helper()
	var list []time.Duration
	for range 3 {
		list = append(list, vm.Run(b, args...).CPU())
		after()
	}
	slices.Sort(list)
	return list[1]
}

// BenchmarkStart counts the instructions of what only prints, and of a list.
func BenchmarkStart(b *testing.B) {
	const systemdsEnroll, systemdsSetup = "/usr/bin/systemd-cryptenroll", "/usr/bin/systemd-cryptsetup"
	s, tree := makeSample(b), testenv.Systemd257(b)
	vm := Boot(b, Config{CountInstructions: true, Root: tree.Root, Programs: []string{systemdsEnroll, systemdsSetup}, Disks: []Disk{{Path: copyOf(b, s.image)}}})
	cost := func(args ...string) time.Duration { return medianCost(b, vm, func() {}, args...) }
	cryptenroll, unit := inMemory(b, vm, "./cryptenroll"), inMemory(b, vm, "./cryptsetup-unit")
	for _, bb := range []struct {
		name, ours, peer string
		limit            time.Duration
	}{
		{"unit", unit, systemdsSetup, unitStart},
		{"cryptenroll", cryptenroll, systemdsEnroll, cryptenrollStart},
	} {
		ours, peer := cost(bb.ours, "--version"), cost(bb.peer, "--version")
		b.ReportMetric(ours.Seconds()*1000, bb.name+"-ms")
		b.ReportMetric(peer.Seconds()*1000, "peer-"+bb.name+"-ms")
		b.Logf("start of %s: %v, %s 257 %v", bb.name, ours, filepath.Base(bb.peer), peer)
		if ours > bb.limit {
			b.Errorf("start of %s: more than %v", bb.name, bb.limit)
		}
	}
	ours, peer := cost(cryptenroll, "/dev/vda"), cost(systemdsEnroll, "/dev/vda")
	share := float64(ours) / float64(peer)
	b.ReportMetric(share, "list/peer")
	b.Logf("list: %v, systemd-cryptenroll 257 %v: %.2f", ours, peer, share)
	if share > listShare {
		b.Errorf("list: more than %.2f", listShare)
	}
	b.ReportMetric(0, "ns/op")
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
