package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/luks2"
)

// TestSystemdOpensByTheKeyThatFits has systemd-cryptsetup 257, which knows nothing of
// follow, try the tokens of several states, of which one fits. It ends where it would
// map the volume. (systemd 252 does the same behind the kernel's resource manager; it
// leaves its objects in the TPM at each try, of which swtpm holds three.)
func TestSystemdOpensByTheKeyThatFits(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	m, volume := followMachine(t)
	entries := []string{"debian-6.12.1", "debian-6.12.2", "debian-6.12.3"}
	for _, entry := range entries[1:] {
		m.install(entry, entry)
	}
	m.want(0, m.follow("--json=short", "--compat=257", volume))
	if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
		t.Fatal(r.stderr)
	}
	image := filepath.Join(tree.Dir(), "v.img")
	if err := os.WriteFile(image, content(t, filepath.Join(m.root, volume)), 0o600); err != nil {
		t.Fatal(err)
	}
	m.install("strange", "never sealed for")
	for _, entry := range append(entries, "strange") {
		m.start(entry)
		log := runCommand(t, tree.Command([]string{"SYSTEMD_LOG_LEVEL=debug"}, "/usr/bin/systemd-cryptsetup", "attach", "luksmith-follow", tree.Inside(image), "-",
			"headless=1,tpm2-device="+strings.ReplaceAll(m.chip.Device(), ",", `\,`))).stderr
		want := 1
		if entry == "strange" {
			want = 0
		}
		if got := strings.Count(log, "Completed TPM2 key unsealing"); got != want {
			t.Errorf("in %s: unsealed %d times, want %d\n%s", entry, got, want, log)
		}
	}
}

// TestSystemdTakesTheSignatureFile: signatures stand in the token, where systemd does
// not look, and in a file if somebody asks for it.
func TestSystemdTakesTheSignatureFile(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	m, volume := signingMachine(t, true)
	m.want(0, m.follow("--json=short", "--tpm2-pcrs=4+7", "--signature-file=/etc/luksmith/signatures.json", volume))
	m.install("debian-6.12.2", "second kernel")
	m.hook("")
	file, image := filepath.Join(tree.Dir(), "signatures.json"), filepath.Join(tree.Dir(), "v.img")
	for from, to := range map[string]string{"etc/luksmith/signatures.json": file, volume: image} {
		if err := os.WriteFile(to, content(t, filepath.Join(m.root, from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.install("strange", "never signed for")
	for entry, want := range map[string]int{"debian-6.12.1": 1, "debian-6.12.2": 1, "strange": 0} {
		m.start(entry)
		log := runCommand(t, tree.Command([]string{"SYSTEMD_LOG_LEVEL=debug", "PIN=4711"}, "/usr/bin/systemd-cryptsetup", "attach", "luksmith-signed", tree.Inside(image), "-",
			"headless=1,tpm2-signature="+tree.Inside(file)+",tpm2-device="+strings.ReplaceAll(m.chip.Device(), ",", `\,`))).stderr
		if got := strings.Count(log, "Completed TPM2 key unsealing"); got != want {
			t.Errorf("in %s: unsealed %d times, want %d\n%s", entry, got, want, log)
		}
	}
}

// TestFollowGrowsTheHeaderByLittle is a promise of docs/formats.md: bytes of a state,
// and how many fit into a header of the default size beside a passphrase.
func TestFollowGrowsTheHeaderByLittle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		compat, pcrs string
		most         uint64 // bytes for each state
		least        int    // states that fit
	}{{"252", "4+7", 1340, 8}, {"257", "4+7", 1520, 7}, {"257", "4+7+8+9", 1655, 7}} {
		t.Run(c.compat+" "+c.pcrs, func(t *testing.T) {
			t.Parallel()
			m, volume := followMachine(t)
			if r := runCommand(t, m.command("--wipe-slot=1", volume)); r.status != 0 {
				t.Fatal(r.stderr)
			}
			used := func() uint64 {
				dev, err := luks2.Open(filepath.Join(m.root, volume), nil)
				if err != nil {
					t.Fatal(err)
				}
				h, err := dev.Header(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return h.Space.JSONUsed
			}
			follow := func() followView {
				r := runCommand(t, m.command("follow", "--esp-path=/efi", "--tpm2-device="+m.chip.Device(), "--tpm2-pcrs="+c.pcrs, "--tpm2-with-pin=no", "--compat="+c.compat, "--json=short", volume))
				if r.status != 0 && r.status != 12 {
					t.Fatal(r.status, r.stderr)
				}
				return m.want(r.status, r)
			}
			before := used()
			for _, name := range strings.Split("bcdefghijklmn", "") {
				m.install("debian-6.12."+name, name)
			}
			follow()
			fit := len(m.slots(volume)) - 1
			one := (used() - before) / uint64(fit)
			t.Logf("%d bytes for a state, %d of %d, %d states fit", one, before, used(), fit)
			if one > c.most || fit < c.least {
				t.Errorf("%d bytes, %d states; want %d and %d", one, fit, c.most, c.least)
			}
		})
	}
}
