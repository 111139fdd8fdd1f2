package eventlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parsed(t testing.TB, name string) []Event {
	t.Helper()
	events, err := Parse(read(t, name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return events
}

// TestEventsHaveNames shows what users will read.
func TestEventsHaveNames(t *testing.T) {
	t.Parallel()
	var names []string
	for _, e := range parsed(t, "ubuntu-5.11.0-1008.bin") {
		names = append(names, e.String())
	}
	for _, want := range []string{
		"GCE Virtual Firmware v1 (EV_S_CRTM_VERSION)",
		"variable SecureBoot (EV_EFI_VARIABLE_DRIVER_CONFIG)",
		"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG)",
		"variable BootOrder (EV_EFI_VARIABLE_BOOT)",
		"end of the firmware's part (EV_SEPARATOR)",
		"Calling EFI Application from Boot Option (EV_EFI_ACTION)",
		`program \EFI\ubuntu\shimx64.efi (EV_EFI_BOOT_SERVICES_APPLICATION)`,
		"variable SbatLevel (EV_EFI_VARIABLE_AUTHORITY)",
		"/boot/vmlinuz-5.11.0-1008-gcp (EV_IPL)",
		"EV_EFI_GPT_EVENT",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no event %q", want)
		}
	}
	for _, name := range names {
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) || name == "" {
			t.Errorf("%q is not plain", name)
		}
	}
}

// TestRecordedPairs are the three updates that most often keep a TPM from
// unsealing.
func TestRecordedPairs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, after string
		pcr                 int
		want                []string // with the names of the earlier boot, and without
		brief               []string
	}{
		{"dbx update", "ubuntu-5.11.0-1008.bin", "ubuntu-5.11.0-1006-dbx.bin", 7,
			[]string{"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"}, []string{"variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"}},
		{"Secure Boot off", "ubuntu-5.11.0-1008-secureboot.bin", "ubuntu-5.11.0-1008.bin", 7,
			[]string{"variable SecureBoot (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"}, []string{"variable SecureBoot (EV_EFI_VARIABLE_DRIVER_CONFIG) changed"}},
		{"kernel update", "ubuntu-5.11.0-1006-dbx.bin", "ubuntu-5.11.0-1008.bin", 9,
			[]string{"/boot/vmlinuz-5.11.0-1008-gcp (EV_IPL) is new", "/boot/vmlinuz-5.11.0-1006-gcp (EV_IPL) is missing"},
			[]string{"/boot/vmlinuz-5.11.0-1008-gcp (EV_IPL) changed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := parsed(t, c.before), parsed(t, c.after)
			old := Old{Prefixes: Prefixes(before, "sha256", c.pcr)}
			if got := Compare(old, after, "sha256", c.pcr); !containsAll(got, c.brief) {
				t.Errorf("from digests: %q, want %q", got, c.brief)
			}
			for _, e := range Of(before, c.pcr) {
				old.Names = append(old.Names, e.String())
			}
			if got := Compare(old, after, "sha256", c.pcr); !containsAll(got, c.want) {
				t.Errorf("with names: %q, want %q", got, c.want)
			}
			if got := Compare(old, before, "sha256", c.pcr); len(got) != 0 {
				t.Errorf("a boot differs from itself: %q", got)
			}
		})
	}
}

func containsAll(list, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(list, w) })
}

func TestCompareNewAndMissingEvents(t *testing.T) {
	t.Parallel()
	all := parsed(t, "ubuntu-5.11.0-1008.bin")
	fewer := slices.DeleteFunc(slices.Clone(all), func(e Event) bool { return strings.HasPrefix(e.String(), "variable dbx") })
	dbx := "variable dbx (EV_EFI_VARIABLE_DRIVER_CONFIG)"
	if got := Compare(Old{Prefixes: Prefixes(fewer, "sha256", 7)}, all, "sha256", 7); !slices.Equal(got, []string{dbx + " is new"}) {
		t.Errorf("one more: %q", got)
	}
	if got := Compare(Old{Prefixes: Prefixes(all, "sha256", 7)}, fewer, "sha256", 7); !slices.Equal(got, []string{"events that are missing: 1"}) {
		t.Errorf("one less: %q", got)
	}
	if got := Compare(Old{}, all, "sha256", 8); len(got) != maxDifferences || !strings.Contains(got[maxDifferences-1], "more events differ") {
		t.Errorf("everything new: %q", got)
	}
}

func TestSecureBootFlipped(t *testing.T) {
	t.Parallel()
	off, on := parsed(t, "ubuntu-5.11.0-1008.bin"), parsed(t, "ubuntu-5.11.0-1008-secureboot.bin")
	at := slices.IndexFunc(off, func(e Event) bool { return strings.HasPrefix(e.String(), "variable SecureBoot") })
	digest, flippedOn, ok := off[at].SecureBootFlipped("sha256")
	if !ok || !flippedOn || !bytes.Equal(digest, on[at].Digests["sha256"]) {
		t.Errorf("flipping off gives %x, on %v, %v", digest, flippedOn, ok)
	}
	if _, _, ok := off[at+1].SecureBootFlipped("sha256"); ok {
		t.Error("another variable is taken for SecureBoot")
	}
}

// TestReplay compares with the values that the TPMs of the recorded machines had
// (from the same source as the logs).
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		log, bank string
		pcr       int
		want      string
	}{
		{"ubuntu-5.11.0-1008.bin", "sha256", 0, "24af52a4f429b71a3184a6d64cddad17e54ea030e2aa6576bf3a5a3d8bd3328f"},
		{"ubuntu-5.11.0-1008.bin", "sha256", 4, "295aeaeacad1d507930bab18418f905eeda633ea67b2ab94c5e5fd3a4d47ac58"},
		{"ubuntu-5.11.0-1008.bin", "sha256", 7, "ca37324eeffabd318d30a20f15bf27ce25dc33e2c9856279ff6c2ced58b02efa"},
		{"ubuntu-5.11.0-1008.bin", "sha256", 8, "2f2559cae74bb441d75afea5edb78d9a645db9f4bf8dea84bab0861ce6032e18"},
		{"ubuntu-5.11.0-1008.bin", "sha1", 9, "f53869ab9015b5ad736e5f00e44fdfee2fdfde27"},
		{"ubuntu-5.11.0-1006-dbx.bin", "sha256", 7, "0d8847bc5eca06452df10e2f214363845c7ac11d47525a5474e225e72ce25dfe"},
		{"ubuntu-5.11.0-1006-dbx.bin", "sha1", 7, "ede7204673f41ac2592b0d3b4cd429b43f39dc61"},
		{"arch-workstation.bin", "sha256", 7, "3b4a4db44b7a872524055364e62e897ae678e0d47ab0809f65c3a4ed77f66ab9"},
		{"arch-workstation.bin", "sha256", 8, "47591b43af431963eaeb5238a5c42eda1eb0014c27f7de7ae483066a2d2a2e61"},
		{"debian-10-sha1.bin", "sha1", 0, "0f2d3a2a1adaa479aeeca8f5df76aadc41b862ea"},
		{"debian-10-sha1.bin", "sha1", 7, "9e6c57e850f371c2a7fe02bca552149363952318"},
		{"debian-10-sha1.bin", "sha256", 7, ""},
		{"arch-workstation.bin", "sha512", 7, ""},
	} {
		if got := hex.EncodeToString(Replay(parsed(t, c.log), c.bank, c.pcr)); got != c.want {
			t.Errorf("%s, PCR %d, %s: %s, want %s", c.log, c.pcr, c.bank, got, c.want)
		}
	}
}

func TestDamagedLogs(t *testing.T) {
	t.Parallel()
	whole := read(t, "arch-workstation.bin")
	for n := range len(whole) {
		if n > 2000 {
			n = 2000 + (n-2000)*13%(len(whole)-2000)
		}
		events, err := Parse(whole[:n])
		if err != nil && !errors.Is(err, ErrTruncated) {
			t.Fatalf("first %d bytes: %v", n, err)
		}
		if len(events) > 25 {
			t.Fatalf("first %d bytes: %d events", n, len(events))
		}
	}
	for _, padding := range []byte{0, 0xff} {
		events, err := Parse(append(bytes.Clone(whole), bytes.Repeat([]byte{padding}, 1<<20)...))
		if err != nil || len(events) != 24 {
			t.Errorf("padding %#x: %d events, %v", padding, len(events), err)
		}
	}
}

func TestUserspaceLog(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("61", 32)
	log := "\x1e" + `{"pcr":15,"digests":[{"hashAlg":"sha256","digest":"` + digest + `"},{"hashAlg":"sha1","digest":"00"}],"content_type":"systemd","content":{"string":"cryptsetup:root:uuid","bootId":"6b","timestamp":2684113793,"eventType":"volume-key"}}` + "\n" +
		"\x1e" + `{"pcr":"x"}` + "\n\x1e{broken\n\x1e" + `{"pcr":11,"digests":[],"content":{"string":"enter-initrd\u001b","eventType":"phase"}}` + "\n"
	events := ParseUserspace([]byte(log))
	if len(events) != 2 || events[0].PCR != 15 || hex.EncodeToString(events[0].Digests["sha256"]) != digest || events[0].Digests["sha1"] != nil {
		t.Fatalf("%+v", events)
	}
	if events[0].String() != "volume-key cryptsetup:root:uuid" || events[1].String() != `phase enter-initrd\x1b` {
		t.Errorf("%q, %q", events[0], events[1])
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"arch-workstation.bin", "ubuntu-5.11.0-1008.bin"} {
		f.Add(read(f, name)[:1500])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		events, _ := Parse(b)
		for _, e := range events {
			_ = e.String()
			e.SecureBootFlipped("sha256")
		}
		Compare(Old{Prefixes: []byte("12345678")}, events, "sha256", 7)
		Replay(events, "sha256", 0)
	})
}

func FuzzParseUserspace(f *testing.F) {
	f.Add([]byte("\x1e" + `{"pcr":11,"digests":[{"hashAlg":"sha1","digest":"` + strings.Repeat("61", 20) + `"}],"content":{"string":"enter-initrd","eventType":"phase"}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range ParseUserspace(b) {
			if name := e.String(); strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q is not plain", name)
			}
			Replay([]Event{e}, "sha1", e.PCR)
		}
	})
}
