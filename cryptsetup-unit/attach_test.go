package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/dmcrypt"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

func TestKeyFileOpens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := newImage(t)
	r, err := b.run(t, "vol", image, b.file(t, "k", rightKey), "luks,discard,read-only,no-read-workqueue")
	if err != nil {
		t.Fatal(err)
	}
	if r.Result != "attached" || r.Exit != 0 || *r.Opened.Keyslot != 1 || r.Opened.By != "key file "+filepath.Join(b.root, "k") || len(r.Failures) != 0 {
		t.Errorf("report: %+v", r)
	}
	want := dmcrypt.Request{Name: "vol", Type: dmcrypt.LUKS2, UUID: r.UUID, Device: image, Flags: dmcrypt.AllowDiscards | dmcrypt.NoReadWorkqueue, ReadOnly: true,
		Segment: dmcrypt.Segment{Offset: 16 << 20, Encryption: "aes-xts-plain64", SectorSize: 512}}
	got := b.mapped[0]
	if !reflect.DeepEqual(got, want) {
		t.Errorf("mapping:\n got  %+v\n want %+v", got, want)
	}
	info, err := os.Stat(reportPath(b.root, "vol"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the report: %v, %v", info, err)
	}
	var stages []string
	for _, s := range r.Stages {
		stages = append(stages, s.Name)
	}
	if strings.Join(stages, " ") != "device header unlock map" {
		t.Errorf("stages: %v", stages)
	}
}

func TestVolumeKeyIsMeasuredBeforeTheMappingIsMade(t *testing.T) {
	t.Parallel()
	for options, pcr := range map[string]string{"tpm2-measure-pcr=yes": "15 []", "tpm2-measure-pcr=11,tpm2-measure-bank=sha384": "11 [sha384]", "luksmith-latch": "15 []", "luksmith-latch,tpm2-measure-pcr=12": "12 []"} {
		b := newBench(t)
		r, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), options)
		want := pcr + " " + r.Identity
		if err != nil || len(b.measured) != 1 || b.measured[0] != want || len(b.mapped) != 1 {
			t.Errorf("%s: %v, measured %v, want %s", options, err, b.measured, want)
		}
		b = newBench(t)
		b.measure = func(context.Context, *tpm2.Handler, *tpm2.MeasureRequest) (*tpm2.Measured, error) {
			return nil, errors.New("no TPM")
		}
		if _, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), options); err == nil || len(b.mapped) != 0 {
			t.Errorf("%s, measuring fails: %v, %v", options, err, b.mapped)
		}
	}
}

// TestTPMThatComesLateIsWaitedForBeforeMeasuring: a key file is faster than a driver.
func TestTPMThatComesLateIsWaitedForBeforeMeasuring(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]int{"tpm2-measure-pcr=yes": cli.ExitOK, "tpm2-measure-pcr=yes,token-timeout=10ms": cli.ExitTimedOut} {
		b := newBench(t)
		if want == cli.ExitOK {
			b.devices.watch = eventsAt(time.Millisecond, 2*time.Millisecond)
		}
		calls := 0
		b.measure = func(context.Context, *tpm2.Handler, *tpm2.MeasureRequest) (*tpm2.Measured, error) {
			if calls++; calls < 4 {
				return nil, tokens.ErrNoDevice
			}
			return &tpm2.Measured{}, nil
		}
		_, err := b.run(t, "vol", newImage(t), b.file(t, "k", rightKey), options)
		if cli.ExitStatus(err) != want || len(b.mapped) == 1 != (want == cli.ExitOK) {
			t.Errorf("%s: %v after %d calls, mapped %v", options, err, calls, b.mapped)
		}
		if err != nil && !strings.Contains(err.Error(), "TPM did not appear within 10ms") {
			t.Errorf("%s: %v", options, err)
		}
	}
}

// TestSignalsLeaveNothing cancels a run at several moments.
func TestSignalsLeaveNothing(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"prompt":        {"-", "password-cache=no"},
		"silent socket": {"SOCKET", "password-cache=no"},
		"absent device": {"-", ""},
	} {
		b := newBench(t)
		image := newImage(t)
		if name == "absent device" {
			image = "/dev/disk/by-uuid/" + uuid3
		}
		if args[0] == "SOCKET" {
			args[0], _ = serve(t, func(net.Conn) { time.Sleep(10 * time.Second) })
		}
		ctx, cancel := context.WithCancelCause(b.ctx)
		b.ctx = ctx
		time.AfterFunc(50*time.Millisecond, func() { cancel(&cli.SignalError{Signal: os.Interrupt}) })
		start := time.Now()
		if _, err := b.run(t, append([]string{"vol", image}, args...)...); cli.ExitStatus(err) != cli.ExitCancelled {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if left, _ := filepath.Glob(filepath.Join(b.root, "ask", "*")); len(left) != 0 || len(b.mapped) != 0 {
			t.Errorf("%s: left behind: %v %v", name, left, b.mapped)
		}
	}
}

func TestLUKS1(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	image := write(t, filepath.Join(t.TempDir(), "image"), make([]byte, 3<<20), 0o600)
	pass := write(t, filepath.Join(t.TempDir(), "p"), []byte(rightPassphrase), 0o600)
	testenv.Run(t, "cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", image, pass)
	b := newBench(t)
	asked := b.agent(t, "+"+rightPassphrase)
	r, err := b.run(t, "vol", image, b.file(t, "k", "wrong"), "password-cache=no,tpm2-device=auto,discard")
	if err != nil || *r.Opened.Keyslot != 0 || asked()[0]["Message"] != "Please enter passphrase for disk vol:" {
		t.Fatalf("%v, %v", err, asked())
	}
	if m := b.mapped[0]; m.Type != dmcrypt.LUKS1 || m.UUID != r.UUID || m.Flags != dmcrypt.AllowDiscards || m.Segment.Encryption == "" {
		t.Errorf("mapping: %+v", m)
	}
	if _, err := b.run(t, "vol", image, "-", "luksmith-token-only"); cli.ExitStatus(err) != cli.ExitRefused {
		t.Errorf("token-only: %v", err)
	}
}

// TestDetachedHeader has the header in a file, and in a file on another device.
func TestDetachedHeader(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := newVolume(t, luks2test.WithDetachedHeader())
	key := b.file(t, "k", rightKey)
	r, err := b.run(t, "vol", v.Path, key, "header="+v.HeaderPath)
	if err != nil || r.UUID != v.UUID || b.mapped[0].Device != v.Path || b.mapped[0].Segment.Offset != 0 {
		t.Errorf("%v, %+v", err, b.mapped)
	}
	unmounted := 0
	b.mount = func(_ context.Context, device string) (string, func() error, error) {
		return filepath.Dir(v.HeaderPath), func() error { unmounted++; return nil }, nil
	}
	stick := b.file(t, "stick", "")
	r, err = b.run(t, "vol", v.Path, key, "header=/"+filepath.Base(v.HeaderPath)+":"+stick)
	if err != nil || r.UUID != v.UUID || unmounted != 1 {
		t.Errorf("on another device: %v, unmounted %d times", err, unmounted)
	}
	if _, err := b.run(t, "vol", v.Path, key, "header=/none:"+stick); err == nil || unmounted != 2 {
		t.Errorf("no such file: %v, unmounted %d times", err, unmounted)
	}
}
