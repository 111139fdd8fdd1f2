package forecast

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/internal/test/testenv"
	"luksmith/tokens/tpm2/bootchain/host"
)

// sizeInitrd makes images of 100 MB.
const sizeInitrd = 100 << 20

// entries makes a machine with so many entries, the first of which is running, and
// returns the images.
func entries(b *testing.B, count int) (root string, images []string) {
	b.Helper()
	for _, peer := range peers {
		testenv.Need(b, peer.command[0])
	}
	root = b.TempDir()
	disk := filepath.Join(root, boottest.ESP)
	put := func(name string, content []byte) {
		if err := boottest.Write(filepath.Join(disk, name), content); err != nil {
			b.Fatal(err)
		}
	}
	put("EFI/BOOT/BOOTX64.EFI", petest.Loader("257"))
	put("EFI/Linux/entry1.efi", petest.Image("257", petest.Kernel(boottest.Kernel), make([]byte, sizeInitrd), "quiet"))
	for i := range count {
		name := filepath.Join(disk, fmt.Sprintf("EFI/Linux/entry%d.efi", i+1))
		if i > 0 { // another file to whoever reads it, without the room
			if err := os.Link(images[0], name); err != nil {
				b.Fatal(err)
			}
		}
		images = append(images, name)
	}
	if _, err := boottest.Start(boottest.Load(b, boots, "uki")["base"], root, "/EFI/Linux/entry1.efi"); err != nil {
		b.Fatal(err)
	}
	return root, images
}

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// predict is what a hook asks for: the PCRs of each entry that a key is bound to.
func predict(b *testing.B, root string, count int) time.Duration {
	b.Helper()
	begin := cpu(b)
	f, err := Read(Request{Host: host.Options{Root: root}})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if !f.Known() || len(f.Next) != count {
		b.Fatalf("%d entries, known: %t", len(f.Next), f.Known())
	}
	for i := range f.Next {
		if f.Next[i].option() == "" {
			b.Fatal("no value")
		}
	}
	return cpu(b) - begin
}

// peers hash the images too: sha256sum, which in Debian 12 uses no instructions for it,
// and OpenSSL, which does where the CPU has them.
var peers = []struct {
	command []string
	ms, of  string // metrics
}{{[]string{"sha256sum"}, "peer-cpu-ms", "cpu/peer"}, {[]string{"openssl", "dgst", "-sha256"}, "openssl-cpu-ms", "cpu/openssl"}}

// hashedBy is the CPU time of a peer.
func hashedBy(b *testing.B, peer, images []string) time.Duration {
	b.Helper()
	cmd := exec.Command(peer[0], append(peer[1:len(peer):len(peer)], images...)...)
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// BenchmarkPredict predicts entries of 100 MB and compares with programs that hash the
// same files.
func BenchmarkPredict(b *testing.B) {
	took := map[int]time.Duration{}
	for _, count := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("%d entries", count), func(b *testing.B) {
			root, images := entries(b, count)
			var ours time.Duration
			theirs := make([]time.Duration, len(peers))
			for b.Loop() {
				ours += predict(b, root, count)
				for i, peer := range peers {
					theirs[i] += hashedBy(b, peer.command, images)
				}
			}
			took[count] = ours / time.Duration(b.N)
			ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
			b.ReportMetric(ms(ours), "cpu-ms")
			for i, peer := range peers {
				b.ReportMetric(ms(theirs[i]), peer.ms)
				b.ReportMetric(ours.Seconds()/theirs[i].Seconds(), peer.of)
			}
			if count == 8 {
				// 1 if four more entries cost what the first further ones do.
				b.ReportMetric((took[8]-took[4]).Seconds()/4/((took[4]-took[1]).Seconds()/3), "growth")
			}
		})
	}
}
