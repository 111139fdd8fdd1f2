package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// These benchmarks run the whole command, built as users get it, and a peer in
// turn, and report medians and their ratios: "cpu/peer" is 0.5 when we take half
// the processor time. Less is better.

// BenchmarkList lists a volume, beside systemd-cryptenroll.
func BenchmarkList(b *testing.B) {
	testenv.Need(b, "cryptsetup", systemdsOwn, "/usr/bin/time")
	image := benchVolume(b, 1, cheapKDF...)
	ours, theirs := benchCommand(b, "list", image), exec.Command(systemdsOwn, image)
	against(b, ours, theirs, nil)
	b.ReportMetric(peakKiB(b, ours), "KiB")
	b.ReportMetric(peakKiB(b, theirs), "peer-KiB")
	b.ReportMetric(peakKiB(b, ours)/peakKiB(b, theirs), "KiB/peer")
}

// BenchmarkPassphrase checks one passphrase, beside cryptsetup. "user/peer" is
// the part of the user CPU time: a virtual machine can hand free memory back to its
// host and wait for every huge page that it takes again, which then costs seconds of
// system time for 1 GiB and hides what the KDF takes.
//
//	go test -run '^$' -bench 'Passphrase/argon2id_64' -benchtime 5x ./cryptenroll
func BenchmarkPassphrase(b *testing.B) {
	testenv.Need(b, "cryptsetup")
	argon2id := func(mebibytes int) []string {
		return []string{"--pbkdf", "argon2id", "--pbkdf-memory", strconv.Itoa(mebibytes << 10), "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "4"}
	}
	for _, bb := range []struct {
		name  string
		slots int
		kdf   []string
	}{
		{"pbkdf2-1000", 1, cheapKDF},
		{"pbkdf2-1000 in the last of 8", 8, cheapKDF},
		{"pbkdf2-1000 in the last of 32", 32, cheapKDF},
		{"argon2id 16 MiB", 1, argon2id(16)},
		{"argon2id 64 MiB", 1, argon2id(64)},
		{"argon2id 1 GiB", 1, argon2id(1024)},
		{"argon2id 2 GiB", 1, argon2id(2048)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			image := benchVolume(b, bb.slots, bb.kdf...)
			key := benchKey(b, bb.slots-1)
			ours := benchCommand(b, "test", "--unlock-key-file="+key, image)
			against(b, ours, exec.Command("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--key-file", key, image), nil)
			b.ReportMetric(peakKiB(b, ours), "KiB")
		})
	}
}

// BenchmarkEnrolRecovery enrols a recovery key, beside systemd-cryptenroll.
func BenchmarkEnrollRecovery(b *testing.B) {
	testenv.Need(b, "cryptsetup", systemdsOwn)
	fresh := benchVolume(b, 1, cheapKDF...)
	image, key := filepath.Join(b.TempDir(), "image"), benchKey(b, 0)
	against(b, benchCommand(b, "--recovery-key", "--unlock-key-file="+key, image),
		exec.Command(systemdsOwn, "--recovery-key", "--unlock-key-file="+key, image),
		func() { testenv.Run(b, "cp", fresh, image) })
}

var cheapKDF = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}

// benchKey writes the key file for a slot.
func benchKey(b *testing.B, slot int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(path, fmt.Appendf(nil, "key %d", slot), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// benchVolume makes a volume with keys for that many keyslots.
func benchVolume(b *testing.B, slots int, kdf ...string) string {
	b.Helper()
	image := filepath.Join(b.TempDir(), "volume")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(image, 32<<20); err != nil {
		b.Fatal(err)
	}
	first := benchKey(b, 0)
	testenv.Run(b, "cryptsetup", append([]string{"luksFormat", "-q", "--type", "luks2", image, first}, kdf...)...)
	for slot := 1; slot < slots; slot++ {
		testenv.Run(b, "cryptsetup", append([]string{"luksAddKey", "-q", "--key-file", first, image, benchKey(b, slot)}, kdf...)...)
	}
	return image
}

// benchCommand builds cryptenroll as the Makefile does, and copies it as an installation
// does: what the linker writes lies in the page cache page by page, which takes a tenth
// more of a short command than a file that was written or read in order.
func benchCommand(b *testing.B, args ...string) *exec.Cmd {
	b.Helper()
	dir := b.TempDir()
	built, installed := filepath.Join(dir, "built"), filepath.Join(dir, "cryptenroll")
	testenv.Run(b, "make", "-s", "-C", "..", "commands", "COMMANDS=cryptenroll", "BUILD="+built)
	testenv.Run(b, "install", filepath.Join(built, "cryptenroll"), installed)
	return exec.Command(installed, args...)
}

// against runs two commands in turn, prepare before each, and reports what ours
// takes and its part of the peer's.
func against(b *testing.B, ours, peer *exec.Cmd, prepare func()) {
	b.Helper()
	var cpu, user, wall [2][]time.Duration
	for b.Loop() {
		for i, command := range []*exec.Cmd{ours, peer} {
			if prepare != nil {
				prepare()
			}
			cmd := exec.Command(command.Path, command.Args[1:]...)
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%s: %v\n%s", cmd, err, out)
			}
			wall[i] = append(wall[i], time.Since(start))
			user[i] = append(user[i], cmd.ProcessState.UserTime())
			cpu[i] = append(cpu[i], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
	}
	b.ReportMetric(0, "ns/op") // of both together: of no use
	b.ReportMetric(median(cpu[0]).Seconds()*1000, "cpu-ms")
	b.ReportMetric(median(cpu[1]).Seconds()*1000, "peer-cpu-ms")
	b.ReportMetric(float64(median(cpu[0]))/float64(median(cpu[1])), "cpu/peer")
	b.ReportMetric(float64(median(user[0]))/float64(median(user[1])), "user/peer")
	b.ReportMetric(median(wall[0]).Seconds()*1000, "wall-ms")
	b.ReportMetric(median(wall[1]).Seconds()*1000, "peer-wall-ms")
	b.ReportMetric(float64(median(wall[0]))/float64(median(wall[1])), "wall/peer")
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// peakKiB is the largest memory that a command has had at a time, by GNU time: a
// direct child of ours would begin with the pages of this process.
func peakKiB(b *testing.B, command *exec.Cmd) float64 {
	b.Helper()
	cmd := exec.Command("/usr/bin/time", append([]string{"-f", "%M", "-o", filepath.Join(b.TempDir(), "peak"), command.Path}, command.Args[1:]...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	out, err := os.ReadFile(cmd.Args[4])
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
