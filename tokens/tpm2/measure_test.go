package tpm2

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
)

const measuredUUID = "3f1c1d5e-6f0c-4b5e-9d0e-0c4e0a2f9d11"

// measuring is a handler as crypttab's tpm2-measure-pcr=yes sets it up.
func measuring(t testing.TB, device string) *Handler {
	t.Helper()
	h := handlerFor(t, device)
	h.Measure = Measurement{PCR: 15}
	bootID := h.Paths.join("/proc/sys/kernel/random/boot_id")
	if err := os.MkdirAll(filepath.Dir(bootID), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bootID, []byte("6b5b0c1e-27aa-4b2f-9a53-1f2d3c4b8ed8\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestMeasureVolumeKey(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := measuring(t, swtpm.Device())
	key := secret.Copy([]byte("0123456789abcdef0123456789abcdef"))
	defer key.Wipe()
	m, err := h.MeasureVolumeKey(t.Context(), &MeasureRequest{VolumeKey: key, Name: "my:data", UUID: measuredUUID})
	if err != nil || m.LogErr != nil || strings.Join(m.Banks, " ") != "sha256 sha384 sha512 sha1" {
		t.Fatalf("%+v, %v", m, err)
	}
	text := `cryptsetup:my\x3adata:` + measuredUUID
	mac256, mac1 := hmac.New(sha256.New, key.Bytes()), hmac.New(sha1.New, key.Bytes())
	mac256.Write([]byte(text))
	mac1.Write([]byte(text))
	digest := mac256.Sum(nil)
	want := sha256.Sum256(append(make([]byte, 32), digest...))
	if got := valueOf(t, swtpm, chip.BankSHA256, 15)[15]; hex.EncodeToString(got) != hex.EncodeToString(want[:]) {
		t.Errorf("PCR 15 is %x, want %x", got, want)
	}
	want1 := sha1.Sum(append(make([]byte, 20), mac1.Sum(nil)...))
	if got := valueOf(t, swtpm, chip.BankSHA1, 15)[15]; hex.EncodeToString(got) != hex.EncodeToString(want1[:]) {
		t.Errorf("PCR 15 (sha1) is %x, want %x", got, want1)
	}
	if got := FixateValue(key, "my:data", measuredUUID); got != hex.EncodeToString(digest) {
		t.Errorf("fixate-volume-key is %s, want %x", got, digest)
	}
	info, err := os.Stat(h.Paths.userspaceLog())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("log: %v, %v", info.Mode(), err)
	}
	events := h.Paths.bootEvents()
	if len(events) != 1 || events[0].String() != `volume-key cryptsetup:my\x3adata:`+measuredUUID || string(events[0].Digests["sha256"]) != string(digest) {
		t.Errorf("events %+v", events)
	}
	if value := eventlog.Replay(events, "sha256", 15); hex.EncodeToString(value) != hex.EncodeToString(want[:]) {
		t.Errorf("the log replays to %x", value)
	}
}

// TestSystemd257ReadsOurLog has systemd-pcrlock show it.
func TestSystemd257ReadsOurLog(t *testing.T) {
	t.Parallel()
	p := systemd257(t)
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{TCP: true})
	h := measuring(t, swtpm.Device())
	h.Paths.Root = filepath.Join(p.dir, "root")
	if err := os.CopyFS(h.Paths.Root, os.DirFS(measuring(t, "").Paths.Root)); err != nil {
		t.Fatal(err)
	}
	key := secret.Random(64)
	defer key.Wipe()
	for _, name := range []string{"root", "swap"} {
		if m, err := h.MeasureVolumeKey(t.Context(), &MeasureRequest{VolumeKey: key, Name: name, UUID: measuredUUID}); err != nil || m.LogErr != nil {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	cmd := p.command([]string{"SYSTEMD_TPM2_DEVICE=" + swtpm.Device(), "SYSTEMD_MEASURE_LOG_FIRMWARE=/dev/null",
		"SYSTEMD_MEASURE_LOG_USERSPACE=" + p.inside(h.Paths.userspaceLog())}, "/usr/lib/systemd/systemd-pcrlock", "log", "--json=short")
	out, err := outputWithin(t, cmd)
	if err != nil || !strings.Contains(out, "cryptsetup:root:"+measuredUUID) || !strings.Contains(out, "cryptsetup:swap:"+measuredUUID) {
		t.Errorf("systemd-pcrlock log: %v\n%s", err, out)
	}
}

// TestMeasureClosesTheLatch: the second unseal of the boot is refused.
func TestMeasureClosesTheLatch(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := measuring(t, swtpm.Device())
	h.Latch = true
	e := enrolled(t, h)
	if _, err := unlockToken(t, h, asToken(0, e.Token)); err != nil {
		t.Fatal(err)
	}
	key := secret.Random(64)
	defer key.Wipe()
	if _, err := h.MeasureVolumeKey(t.Context(), &MeasureRequest{VolumeKey: key, Name: "root", UUID: measuredUUID}); err != nil {
		t.Fatal(err)
	}
	if _, err := unlockToken(t, h, asToken(0, e.Token)); !errors.Is(err, tokens.ErrPolicy) {
		t.Errorf("%v, want ErrPolicy", err)
	}
}

func TestMeasureLogTroubleDoesNotKeepFromMeasuring(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	key := secret.Random(64)
	defer key.Wipe()
	req := &MeasureRequest{VolumeKey: key, Name: "root", UUID: measuredUUID}
	for name, break_ := range map[string]func(*Handler){
		"no boot id":  func(h *Handler) { _ = os.RemoveAll(h.Paths.join("/proc")) },
		"a directory": func(h *Handler) { _ = os.MkdirAll(h.Paths.userspaceLog(), 0o755) },
		"a symlink": func(h *Handler) {
			_ = os.MkdirAll(filepath.Dir(h.Paths.userspaceLog()), 0o755)
			_ = os.Symlink("/dev/null", h.Paths.userspaceLog())
		},
	} {
		h := measuring(t, swtpm.Device())
		break_(h)
		before := valueOf(t, swtpm, chip.BankSHA256, 15)[15]
		m, err := h.MeasureVolumeKey(t.Context(), req)
		if err != nil || m.LogErr == nil {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if string(before) == string(valueOf(t, swtpm, chip.BankSHA256, 15)[15]) {
			t.Errorf("%s: PCR 15 was not extended", name)
		}
	}
}

func TestMeasureLogMarksStayAndWait(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := measuring(t, swtpm.Device())
	key := secret.Random(64)
	defer key.Wipe()
	req := &MeasureRequest{VolumeKey: key, Name: "root", UUID: measuredUUID}
	if _, err := h.MeasureVolumeKey(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	path := h.Paths.userspaceLog()
	// Somebody else is at it for a moment, and then leaves an incomplete log.
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := other.Chmod(0o600 | fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	fd, released := int(other.Fd()), make(chan error)
	time.AfterFunc(100*time.Millisecond, func() { released <- unix.Flock(fd, unix.LOCK_UN) })
	began := time.Now()
	if m, err := h.MeasureVolumeKey(t.Context(), req); err != nil || m.LogErr != nil {
		t.Errorf("%+v, %v", m, err)
	}
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	if time.Since(began) < 50*time.Millisecond {
		t.Error("the lock was not waited for")
	}
	if info, err := os.Stat(path); err != nil || info.Mode()&fs.ModeSticky == 0 {
		t.Errorf("the mark of an incomplete log is gone: %v, %v", info.Mode(), err)
	}
	if events := h.Paths.bootEvents(); len(events) != 2 {
		t.Errorf("%d events", len(events))
	}
}

// TestMeasureFailureIsAnError: the latch would stay open.
func TestMeasureFailureIsAnError(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	h := measuring(t, swtpm.Device())
	h.Measure.PCR = 17 // needs a locality that nobody has here
	key := secret.Random(64)
	defer key.Wipe()
	if m, err := h.MeasureVolumeKey(t.Context(), &MeasureRequest{VolumeKey: key, Name: "root", UUID: measuredUUID}); err == nil {
		t.Errorf("%+v", m)
	}
	if info, err := os.Stat(h.Paths.userspaceLog()); err != nil || info.Mode()&fs.ModeSticky != 0 || info.Size() != 0 {
		t.Errorf("log: %v, %v", info, err)
	}
}
