package main

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// TestFollowBesideOtherChanges of the same header, by another follow too: both end well,
// every key that was handed out opens, and the next boot has its keyslot.
func TestFollowBesideOtherChanges(t *testing.T) {
	t.Parallel()
	for i, other := range [][]string{{"follow", "--esp-path=/efi"}, {"reseal", "--slot=1", "--tpm2-pcrs=7"}, {"--recovery-key"}, {"--wipe-slot=label:old"}, {"label", "0", "mine"}} {
		if i > 1 && !testenv.EndToEnd() {
			break // two of them are enough between two make e2e
		}
		t.Run(other[0], func(t *testing.T) {
			m, volume := followMachine(t)
			if r := runCommand(t, m.command("--recovery-key", "--label=old", volume)); r.status != 0 {
				t.Fatal(r.stderr)
			}
			m.want(0, m.follow("--json=short", volume))
			m.install("debian-6.12.2", "another kernel")
			args := append(other, volume)
			switch other[0] {
			case "label":
				args = []string{"label", volume, "0", "mine"}
			case "follow", "reseal":
				args = append(args, "--tpm2-device="+m.chip.Device())
			}
			var wg sync.WaitGroup
			var beside, follow result
			wg.Go(func() { beside = runCommand(t, m.command(args...)) })
			wg.Go(func() { follow = m.follow("--json=short") })
			wg.Wait()
			if beside.status != 0 || follow.status != 0 {
				t.Errorf("%q: %d, follow: %d\n%s%s", args, beside.status, follow.status, beside.stderr, follow.stderr)
			}
			path := filepath.Join(m.root, volume)
			if !opens(t, path, luks2test.Passphrase) || other[0] == "--recovery-key" && !opens(t, path, strings.TrimSpace(beside.stdout)) {
				t.Error("a key is lost")
			}
			m.start("debian-6.12.2")
			if !m.opens(volume) {
				t.Errorf("the next boot has no keyslot\n%s", follow.stdout)
			}
		})
	}
}
