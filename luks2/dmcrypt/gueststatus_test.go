package dmcrypt

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

func mustStatus(t *testing.T, name string) *Info {
	t.Helper()
	i, err := Status(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestGuestStatus(t *testing.T) {
	v := format(t, ramDisk(t), "luks2-4096")
	r := v.request("vol")
	r.Segment.SectorSize, r.Flags, r.ReadOnly = 4096, AllowDiscards, true
	attach(t, r)
	i := mustStatus(t, "vol")
	want := Info{
		Name: "vol", Node: "/dev/mapper/vol", UUID: "CRYPT-LUKS2-" + strings.ReplaceAll(v.uuid, "-", "") + "-vol", Type: "LUKS2", VolumeUUID: v.uuid,
		Source: v.device, Cipher: "aes-xts-plain64", KeySize: 64, KeyName: "cryptsetup:" + v.uuid + "-d0", Offset: 1 << 20, Size: 39 << 20,
		SectorSize: 4096, Flags: AllowDiscards, ReadOnly: true, dev: i.dev, sourceDev: i.sourceDev,
	}
	if *i != want {
		t.Errorf("got  %+v\nwant %+v", *i, want)
	}
	if _, err := Status("nothing"); !errors.Is(err, ErrNotActive) {
		t.Errorf("no mapping: %v", err)
	}
	testenv.Run(t, "dmsetup", "create", "linear", "--table", "0 2048 linear "+ramDisk(t)+" 0")
	defer closeOther(t, "linear")
	if names, err := Names(); err != nil || !slices.Equal(names, []string{"vol"}) {
		t.Errorf("names: %q, %v", names, err)
	}
	testenv.Run(t, "dmsetup", "suspend", "vol")
	if !mustStatus(t, "vol").Suspended {
		t.Error("a suspended mapping is not called so")
	}
	testenv.Run(t, "dmsetup", "resume", "vol")
}

func TestGuestDetachTouchesOnlyEncryptedVolumes(t *testing.T) {
	testenv.NeedGuest(t)
	testenv.Run(t, "dmsetup", "create", "linear", "--table", "0 2048 linear "+ramDisk(t)+" 0")
	defer closeOther(t, "linear")
	if _, err := Detach(t.Context(), "linear", nil); !errors.Is(err, ErrNotCrypt) {
		t.Errorf("got %v", err)
	}
	if _, err := Detach(t.Context(), "nothing", nil); !errors.Is(err, ErrNotActive) {
		t.Errorf("got %v", err)
	}
}

func TestGuestDetachTakesIntegrityBelowAway(t *testing.T) {
	disk := ramDisk(t)
	passphrase := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte("open sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--integrity", "hmac-sha256",
		"--integrity-no-wipe", "--key-file", passphrase, disk)
	testenv.Run(t, "cryptsetup", "open", "--key-file", passphrase, disk, "vol")
	if m := mappings(t); !strings.Contains(m, "vol_dif") {
		t.Fatalf("mappings: %s", m)
	}
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Error(err)
	}
	nothingMapped(t)
}

// TestGuestModulesLoadThemselves is a system without udev: no node, nothing loaded.
func TestGuestModulesLoadThemselves(t *testing.T) {
	v := format(t, ramDisk(t), "luks2-512")
	unload := func() {
		testenv.Run(t, "rmmod", "dm-crypt")
		_ = exec.Command("rmmod", "dm-integrity").Run() // cryptsetup asked for its version
		_ = exec.Command("rmmod", "dm-bufio").Run()
		testenv.Run(t, "rmmod", "dm-mod")
		if err := os.RemoveAll("/dev/mapper"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Status("any"); !errors.Is(err, ErrNotActive) {
		t.Fatal(err)
	}
	attach(t, v.request("vol"))
	if _, err := Detach(t.Context(), "vol", nil); err != nil {
		t.Fatal(err)
	}
	unload()
	t.Run("all there", func(t *testing.T) { attach(t, v.request("vol")) })
	unload()
	t.Run("asked for by several at once", func(t *testing.T) {
		errs := make(chan error, 8)
		for range cap(errs) {
			go func() { errs <- CheckKernel() }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
	unload()
	loader := "/proc/sys/kernel/modprobe"
	old, err := os.ReadFile(loader)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile(loader, old, 0) }()
	if err := os.WriteFile(loader, []byte("/nonexistent"), 0); err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"dm_mod", "dm_crypt"} {
		if err := Attach(t.Context(), v.request("vol")); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), module) {
			t.Errorf("without %s: %v", module, err)
		}
		testenv.Run(t, "modprobe", "dm-mod")
	}
	nothingMapped(t)
}
