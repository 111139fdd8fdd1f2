package e2e

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// What cryptsetup-unit may cost, as parts of what systemd-cryptsetup costs in the
// same guest, and by itself.
const (
	keyFileShare = 0.6
	tpmShare     = 0.5
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
