package e2e

import (
	"regexp"
	"slices"
	"testing"

	"luksmith/internal/test/testenv"
)

// signedVolume is opened by a token that takes signed values: nobody has the secret that
// a further keyslot would need, so follow signs for it.
type signedVolume struct{ name, uuid, device, condition, options string }

// signedVolumes are in this order: opening the last one closes the latch.
func signedVolumes() []signedVolume {
	return []signedVolume{
		{"pin", "5afe0000-0000-4000-8000-000000000919", "/dev/vdc", "--tpm2-with-pin=direct", unattended},
		{"latch", "5afe0000-0000-4000-8000-00000001a7c4", "/dev/vdd", "--tpm2-latch", unattended + ",tpm2-measure-pcr=yes"},
	}
}

// TestUpdatesWithPINAndLatch takes volumes with such tokens through updates, beside one
// with a plain one. systemd gets the signatures in a file.
func TestUpdatesWithPINAndLatch(t *testing.T) {
	m := newUpdating(t, false, false)
	m.signed = signedVolumes()
	for _, v := range m.signed {
		m.makeVolume(v.name, v.uuid)
	}
	m.goThrough(slices.DeleteFunc(updates(), func(u update) bool {
		return !slices.Contains([]string{"kernel", "initrd", "command line", "second update before the reboot", "rollback",
			"kernel removed, another one installed", "loader", "initrd rebuilt outside the package manager"}, u.name)
	}))
}

func (m *updating) disks() []Disk {
	list := []Disk{{Path: m.path("disk")}, {Path: m.path("volume")}}
	for _, v := range m.signed {
		list = append(list, Disk{Path: m.path(v.name)})
	}
	return list
}

const signatureFile = "/data/signatures.json"

// enrollSigned makes the key, on the encrypted file system, and the tokens, and has
// follow look after them.
func (m *updating) enrollSigned() {
	m.t.Helper()
	if m.signed == nil {
		return
	}
	testenv.Need(m.t, "openssl")
	private, public := m.path("follow-key.pem"), m.path("follow-public.pem")
	testenv.Run(m.t, "openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private)
	testenv.Run(m.t, "openssl", "pkey", "-in", private, "-pubout", "-out", public)
	m.Shell(m.t, "mkdir -p /data/luksmith-etc /etc/luksmith; mount --bind /data/luksmith-etc /etc/luksmith; cp "+m.Push(m.t, private)+
		" /etc/luksmith/follow-key.pem; chown 0:0 /etc/luksmith/follow-key.pem; chmod 600 /etc/luksmith/follow-key.pem")
	key := "--unlock-key-file=" + m.Push(m.t, m.path("volume.key"))
	follow := []string{m.cryptenroll, "follow", "--tpm2-pcrs=" + m.pcrs, "--signature-file=" + signatureFile}
	for _, v := range m.signed {
		r := m.Start(m.t, Command{Env: []string{"NEWPIN=" + devicePIN}, Args: []string{m.cryptenroll, key, "--tpm2-device=auto", "--tpm2-public-key=" + m.Push(m.t, public),
			"--tpm2-public-key-pcrs=" + m.pcrs, "--compat=252", v.condition, v.device}}).Wait(m.t)
		if r.Status != 0 {
			m.t.Fatalf("enrolling %s: %d\n%s", v.name, r.Status, r.Stderr)
		}
		follow = append(follow, v.device)
	}
	m.Run(m.t, follow...)
}

// openSigned opens those volumes as the initrd of somebody who types the PIN does, and
// systemd before us.
func (m *updating) openSigned(opens bool) {
	m.t.Helper()
	if m.signed != nil {
		m.Shell(m.t, "[ ! -e "+signatureFile+" ] || { mkdir -p /etc/luksmith; mount --bind /data/luksmith-etc /etc/luksmith; }")
	}
	for _, v := range m.signed {
		if m.peer != "" {
			root, _ := m.peerProgram()
			m.Shell(m.t, "mkdir -p "+root+"/etc/systemd; cp "+signatureFile+" "+root+"/etc/systemd/tpm2-pcr-signature.json")
			m.peerOpens(opens, v.device, ",tpm2-signature=/etc/systemd/tpm2-pcr-signature.json")
		}
		r := m.Start(m.t, Command{Args: []string{m.unit.path, "attach", v.name, v.device, "-", v.options}, Env: []string{"PIN=" + devicePIN}}).Wait(m.t)
		if (r.Status == 0) != opens {
			m.t.Errorf("boot %d: %s ends with %d\n%s", m.boots, v.name, r.Status, r.Stderr)
		}
		if r.Status != 0 {
			m.Run(m.t, m.unit.path, "attach", v.name, v.device, m.Push(m.t, m.path("volume.key")), "headless,tpm2-measure-pcr=yes")
		}
	}
	if m.signed != nil && m.tries("latch") == 0 {
		m.t.Errorf("boot %d: the latch did not close", m.boots)
	}
}

// tries is the status of a test of a volume's token.
func (m *updating) tries(name string) int {
	m.t.Helper()
	i := slices.IndexFunc(m.signed, func(v signedVolume) bool { return v.name == name })
	return m.Start(m.t, Command{Args: []string{m.cryptenroll, "test", "--unlock-tpm2-device=auto", m.signed[i].device}, Env: []string{"PIN=" + devicePIN}}).Wait(m.t).Status
}

// announcedSigned wants follow to have a signature for each entry.
func (m *updating) announcedSigned(name, said string) {
	m.t.Helper()
	for _, v := range m.signed {
		if n := len(regexp.MustCompile(`(?m)^`+v.device+`: .*, keyslot \d+ by a signature$`).FindAllString(said, -1)); n != len(m.installed) {
			m.t.Errorf("%s: signatures for %d entries of %d\n%s", name, n, len(m.installed), said)
		}
	}
}

// settledSigned looks at the headers after a boot: no key was made or lost, and every
// signature is for an entry that is there.
func (m *updating) settledSigned(name string) {
	m.t.Helper()
	for _, v := range m.signed {
		h := m.header(v.name)
		if h.Keyslots["0"] == nil || h.Keyslots["1"] == nil || len(h.Keyslots) != 3 || len(h.Tokens) != 1 {
			m.t.Errorf("%s, %s: %d keyslots, %d tokens", name, v.name, len(h.Keyslots), len(h.Tokens))
		}
		var entries []string
		for _, token := range h.Tokens {
			for _, s := range token.Luksmith.TPM2.Signatures {
				if entries = append(entries, s.Entry); !m.installed[s.Entry] {
					m.t.Errorf("%s, %s: a signature is left for %q", name, v.name, s.Entry)
				}
			}
		}
		if len(entries) != len(m.installed) {
			m.t.Errorf("%s, %s: signatures for %q", name, v.name, entries)
		}
		m.t.Logf("%s: signatures for %q", v.name, entries)
	}
	if m.signed != nil && m.tries("pin") != 0 {
		m.t.Errorf("%s: the running state does not open with the PIN", name)
	}
}
