package fidotest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

const pin = "123456"

// tool runs one of libfido2's programs against a key; lines go to its input.
func tool(t *testing.T, lines []string, name string, args ...string) (string, error) {
	t.Helper()
	testenv.Need(t, name)
	// A session of its own has no terminal to ask for the PIN, so the tool reads
	// its input. The shell leads the session, or the tool would get the key's
	// terminal as its own.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `"$@"; exit $?`, "sh", name}, args...)...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errOut.String())
	}
	return out.String(), nil
}

// plugged is a key in a terminal.
type plugged struct {
	*Key
	path string
	dir  string
}

func plug(t *testing.T, c Config) *plugged {
	t.Helper()
	k := New(c)
	path, err := k.Terminal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &plugged{k, path, t.TempDir()}
}

func zeros(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// input writes a parameter file for the tools.
func (p *plugged) input(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(p.dir, "input")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// create makes a credential with hmac-secret and returns its id.
func (p *plugged) create(t *testing.T, stdin ...string) (id string, err error) {
	t.Helper()
	in := p.input(t, zeros(32), "example.org", "user", zeros(8))
	out, err := tool(t, stdin, "fido2-cred", "-M", "-h", "-i", in, p.path)
	if err != nil {
		return "", err
	}
	if _, err := tool(t, strings.Split(strings.TrimSpace(out), "\n"), "fido2-cred", "-V", "-h"); err != nil {
		t.Errorf("the attestation does not verify: %v", err)
	}
	return strings.Split(out, "\n")[4], nil
}

// secret asks for hmac-secret with a salt of zeros and returns it in base64.
func (p *plugged) secret(t *testing.T, id string, pin string, args ...string) (string, error) {
	t.Helper()
	in := p.input(t, zeros(32), "example.org", id, zeros(32))
	var stdin []string
	if pin != "" {
		args, stdin = append(args, "-t", "pin=true"), []string{pin}
	}
	out, err := tool(t, stdin, "fido2-assert", append(append([]string{"-G", "-h"}, args...), "-i", in, p.path)...)
	if err != nil {
		return "", err
	}
	return strings.Split(strings.TrimSpace(out), "\n")[4], nil
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// TestFirmwareBehavesAsMeasured is the table of docs/formats.md, "Two families of
// firmware", through libfido2's own programs.
func TestFirmwareBehavesAsMeasured(t *testing.T) {
	for _, tt := range []struct {
		name            string
		firmware        Firmware
		silentSecret    string // error of hmac-secret with up=false
		createsWithout  bool   // makeCredential without PIN
		protocols       string // in getInfo
		up              bool   // in getInfo
		uvWithoutReader string // error of uv=true
	}{
		{"A, CTAP 2.1", CTAP21, "FIDO_ERR_UNSUPPORTED_OPTION", true, "pin protocols: 2, 1\n", false, "FIDO_ERR_PIN_REQUIRED"},
		{"B, CTAP 2.0", CTAP20, "", false, "pin protocols: 1\n", true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := plug(t, Config{Firmware: tt.firmware, PIN: pin})
			info, err := tool(t, nil, "fido2-token", "-I", k.path)
			if err != nil || !strings.Contains(info, tt.protocols) || strings.Contains(info, ", up,") != tt.up {
				t.Errorf("%v\n%s", err, info)
			}
			if _, err := k.create(t); (err == nil) != tt.createsWithout { // fido2-cred then asks for the PIN and gets none
				t.Errorf("creating without PIN: %v, want success %v", err, tt.createsWithout)
			}
			id, err := k.create(t, pin)
			if err != nil {
				t.Fatal(err)
			}
			with, err := k.secret(t, id, pin, "-p")
			if err != nil {
				t.Fatal(err)
			}
			without, err := k.secret(t, id, "", "-p")
			if err != nil || with == without || len(with) != 44 {
				t.Errorf("secrets with PIN %s, without %s, %v", with, without, err)
			}
			silent, err := k.secret(t, id, "", "-t", "up=false")
			if tt.silentSecret != "" {
				wantError(t, "secret without touch", err, tt.silentSecret)
			} else if err != nil || silent != without {
				t.Errorf("secret without touch: %s, %v, want %s", silent, err, without)
			}
			_, err = k.secret(t, id, "", "-t", "uv=true", "-p")
			if tt.uvWithoutReader != "" {
				wantError(t, "uv=true", err, tt.uvWithoutReader)
			} else if err != nil {
				t.Errorf("uv=true: %v", err)
			}
		})
	}
}

// TestBlockedKeyOfFirmwareBAnswersNothing: B refuses every getAssertion and
// makeCredential while its PIN is blocked, pre-flights and requests without PIN
// included. A answers those.
func TestBlockedKeyOfFirmwareBAnswersNothing(t *testing.T) {
	for name, firmware := range map[string]Firmware{"A": CTAP21, "B": CTAP20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := plug(t, Config{Firmware: firmware, PIN: pin})
			id, err := k.create(t, pin)
			if err != nil {
				t.Fatal(err)
			}
			for round := range 3 {
				blocked := []string{"FIDO_ERR_PIN_AUTH_BLOCKED", "FIDO_ERR_PIN_AUTH_BLOCKED", "FIDO_ERR_PIN_BLOCKED"}[round]
				k.PlugIn()
				for k.PINRetries() > 0 {
					if _, err := k.secret(t, id, "wrong", "-p"); err != nil && strings.Contains(err.Error(), "BLOCKED") {
						break
					}
				}
				in := k.input(t, zeros(32), "example.org", id)
				_, preflight := tool(t, nil, "fido2-assert", "-G", "-t", "up=false", "-i", in, k.path)
				_, touch := k.secret(t, id, "", "-p")
				for what, err := range map[string]error{"pre-flight": preflight, "secret without PIN": touch} {
					if firmware == CTAP20 {
						wantError(t, what, err, blocked)
					} else if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
		})
	}
}

// What both families have in common.
func TestFirmwareInCommon(t *testing.T) {
	for name, firmware := range map[string]Firmware{"A": CTAP21, "B": CTAP20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := plug(t, Config{Firmware: firmware, PIN: pin, TouchTimeout: 300 * time.Millisecond})
			id, err := k.create(t, pin)
			if err != nil {
				t.Fatal(err)
			}
			k.preflights(t, id)
			k.countsWrongPINs(t, id)
			k.SetTouch(Touch{Never: true})
			_, err = k.secret(t, id, pin, "-p")
			wantError(t, "no touch", err, "FIDO_ERR_ACTION_TIMEOUT")
		})
	}
}

func (p *plugged) preflights(t *testing.T, id string) {
	t.Helper()
	touches := p.Stats().Touches
	for credential, want := range map[string]string{id: "", zeros(64): "FIDO_ERR_NO_CREDENTIALS"} {
		in := p.input(t, zeros(32), "example.org", credential)
		_, err := tool(t, nil, "fido2-assert", "-G", "-t", "up=false", "-i", in, p.path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("pre-flight: %v, want %q", err, want)
		}
	}
	if p.Stats().Touches != touches {
		t.Error("a pre-flight took a touch")
	}
}

func (p *plugged) countsWrongPINs(t *testing.T, id string) {
	t.Helper()
	for i, want := range []string{"FIDO_ERR_PIN_INVALID", "FIDO_ERR_PIN_INVALID", "FIDO_ERR_PIN_AUTH_BLOCKED", "FIDO_ERR_PIN_AUTH_BLOCKED"} {
		_, err := p.secret(t, id, "wrong", "-p")
		wantError(t, "wrong PIN", err, want)
		if left := max(7-i, 5); p.PINRetries() != left {
			t.Errorf("after %d wrong PINs %d tries are left, want %d", i+1, p.PINRetries(), left)
		}
	}
	if _, err := p.secret(t, id, pin, "-p"); err == nil {
		t.Error("the right PIN is taken although PIN entry is blocked")
	}
	p.PlugIn() // a power cycle
	if _, err := p.secret(t, id, pin, "-p"); err != nil || p.PINRetries() != 8 {
		t.Errorf("right PIN after re-plugging: %v, %d tries left", err, p.PINRetries())
	}
}

func TestFingerprintReader(t *testing.T) {
	t.Parallel()
	k := plug(t, Config{PIN: pin, BuiltInUV: true})
	id, err := k.create(t)
	if err != nil {
		t.Fatal(err)
	}
	byPIN, err := k.secret(t, id, pin, "-p")
	if err != nil {
		t.Fatal(err)
	}
	byFinger, err := k.secret(t, id, "", "-t", "uv=true", "-p")
	if err != nil || byFinger != byPIN {
		t.Errorf("by fingerprint %s, by PIN %s, %v", byFinger, byPIN, err)
	}
	k.SetFinger(false)
	for _, want := range []string{"FIDO_ERR_UV_INVALID", "FIDO_ERR_UV_INVALID", "FIDO_ERR_UV_BLOCKED", "FIDO_ERR_UV_BLOCKED"} {
		_, err = k.secret(t, id, "", "-t", "uv=true", "-p")
		wantError(t, "wrong finger", err, want)
	}
	if _, err := k.secret(t, id, pin, "-p"); err != nil {
		t.Error(err)
	}
	k.SetFinger(true)
	if again, err := k.secret(t, id, "", "-t", "uv=true", "-p"); err != nil || again != byPIN {
		t.Errorf("after the PIN unblocked the reader: %s, %v", again, err)
	}
}

func TestAlwaysUV(t *testing.T) {
	t.Parallel()
	k := plug(t, Config{PIN: pin, AlwaysUV: true})
	id, err := k.create(t, pin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.secret(t, id, "", "-p")
	wantError(t, "without PIN", err, "FIDO_ERR_PIN_REQUIRED")
	k.preflights(t, id)
}

func TestNewPIN(t *testing.T) {
	t.Parallel()
	k := plug(t, Config{})
	if _, err := tool(t, []string{"4711", "4711"}, "fido2-token", "-S", k.path); err != nil {
		t.Fatal(err)
	}
	if _, err := tool(t, []string{"4711", pin, pin}, "fido2-token", "-C", k.path); err != nil {
		t.Fatal(err)
	}
	id, err := k.create(t, pin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.secret(t, id, pin, "-p"); err != nil {
		t.Error(err)
	}
}

func TestTwoSaltsGiveTheSecretsOfEach(t *testing.T) {
	t.Parallel()
	k := plug(t, Config{})
	id, err := k.create(t)
	if err != nil {
		t.Fatal(err)
	}
	one, err := k.secret(t, id, "", "-p")
	if err != nil {
		t.Fatal(err)
	}
	in := k.input(t, zeros(32), "example.org", id, base64.StdEncoding.EncodeToString(append(make([]byte, 63), 1)))
	out, err := tool(t, nil, "fido2-assert", "-G", "-h", "-p", "-i", in, k.path)
	if err != nil {
		t.Fatal(err)
	}
	both, err := base64.StdEncoding.DecodeString(strings.Split(strings.TrimSpace(out), "\n")[4])
	if err != nil || len(both) != 64 || base64.StdEncoding.EncodeToString(both[:32]) != one || bytes.Equal(both[:32], both[32:]) {
		t.Errorf("%x, %v, want %s first", both, err, one)
	}
}

func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	k := plug(t, Config{})
	in := k.input(t, zeros(32), "example.org", "user", zeros(8))
	for _, algorithm := range []string{"es256", "eddsa"} {
		made, err := tool(t, nil, "fido2-cred", "-M", "-i", in, k.path, algorithm)
		if err != nil {
			t.Fatal(err)
		}
		public, err := tool(t, strings.Split(strings.TrimSpace(made), "\n"), "fido2-cred", "-V", algorithm)
		if err != nil {
			t.Fatal(err)
		}
		id, pem, _ := strings.Cut(public, "\n")
		keyFile := filepath.Join(k.dir, algorithm)
		if err := os.WriteFile(keyFile, []byte(pem), 0o600); err != nil {
			t.Fatal(err)
		}
		asserted, err := tool(t, []string{zeros(32), "example.org", id}, "fido2-assert", "-G", "-p", k.path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tool(t, strings.Split(strings.TrimSpace(asserted), "\n"), "fido2-assert", "-V", "-p", keyFile, algorithm); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
	_, err := tool(t, nil, "fido2-cred", "-M", "-i", in, k.path, "rs256")
	wantError(t, "rs256", err, "FIDO_ERR_UNSUPPORTED_ALGORITHM")
}
