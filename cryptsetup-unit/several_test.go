package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
)

// BenchmarkSeveral opens four volumes with one passphrase that is typed once, beside
// cryptsetup, which opens one after the other; both stop before the kernel's mapping.
// The time counts from Enter to the last key. "wall/peer" and "cpu/peer" are our parts,
// "one-by-one/peer" is ours with a call for each volume, without anything shared.
//
//	go test -run '^$' -bench Several -benchtime 3x ./cryptsetup-unit
func BenchmarkSeveral(b *testing.B) {
	testenv.Need(b, "cryptsetup")
	for _, mebibytes := range []int{64, 1024} {
		b.Run(fmt.Sprintf("4 volumes of %d MiB", mebibytes), func(b *testing.B) {
			key := filepath.Join(b.TempDir(), "key")
			write(b, key, []byte(rightPassphrase), 0o600)
			var images []string
			for range 4 {
				images = append(images, costlyVolume(b, key, mebibytes))
			}
			var ours, single, peer used
			for b.Loop() {
				ours.add(typedOnce(b, images...))
				for _, image := range images {
					single.add(typedOnce(b, image))
					peer.add(measured(unix.RUSAGE_CHILDREN, func() {
						testenv.Run(b, "cryptsetup", "open", "--test-passphrase", "--key-file", key, image)
					}))
				}
			}
			b.ReportMetric(0, "ns/op") // of all together: of no use
			b.ReportMetric(ours.wall.Seconds()*1000/float64(b.N), "wall-ms")
			b.ReportMetric(peer.wall.Seconds()*1000/float64(b.N), "peer-wall-ms")
			b.ReportMetric(float64(ours.wall)/float64(peer.wall), "wall/peer")
			b.ReportMetric(float64(ours.cpu)/float64(peer.cpu), "cpu/peer")
			b.ReportMetric(float64(single.wall)/float64(peer.wall), "one-by-one/peer")
			b.ReportMetric(float64(single.cpu)/float64(peer.cpu), "one-by-one-cpu/peer")
		})
	}
}

func costlyVolume(b *testing.B, key string, mebibytes int) string {
	b.Helper()
	image := filepath.Join(b.TempDir(), "volume")
	write(b, image, nil, 0o600)
	if err := os.Truncate(image, 32<<20); err != nil {
		b.Fatal(err)
	}
	testenv.Run(b, "cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "argon2id", "--pbkdf-memory", strconv.Itoa(mebibytes<<10),
		"--pbkdf-force-iterations", "4", "--pbkdf-parallel", "4", image, key)
	return image
}

// used is time.
type used struct{ wall, cpu time.Duration }

func (u *used) add(v used) { u.wall, u.cpu = u.wall+v.wall, u.cpu+v.cpu }

// measured is what something takes, here or in the programs that it runs.
func measured(who int, do func()) used {
	cpu := func() time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(who, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin, before := time.Now(), cpu()
	do()
	return used{time.Since(begin), cpu() - before}
}

// typedOnce attaches volumes for which a person takes two seconds to type.
func typedOnce(b *testing.B, images ...string) used {
	b.Helper()
	run, lines := newBench(b), ""
	for i, image := range images {
		lines += fmt.Sprintf("v%d %s - password-cache=no\n", i, image)
	}
	b.Setenv("SYSTEMD_PROC_CMDLINE", "quiet")
	jobs, errs, err := run.planAll(run.file(b, "etc/crypttab", lines), false)
	if err != nil {
		b.Fatal(err)
	}
	enter := make(chan struct{})
	run.onQuestion = func() { time.Sleep(2 * time.Second); close(enter) }
	run.agent(b, "+"+rightPassphrase)
	done := make(chan error, 1)
	go func() { done <- run.attachJobs(jobs, errs) }()
	<-enter
	u := measured(unix.RUSAGE_SELF, func() { err = <-done })
	if err != nil || len(run.mapped) != len(images) {
		b.Fatalf("%v\n%s", err, strings.TrimSpace(run.messages.String()))
	}
	return u
}
