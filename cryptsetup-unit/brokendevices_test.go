package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"luksmith/internal/cli"
	"luksmith/internal/helper"
	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/combo"
	"luksmith/tokens/fido2"
	"luksmith/tokens/pkcs11"
	"luksmith/tokens/tpm2"
)

// devicePIN is that of every security device here.
const devicePIN = "271828"

// faultModule is a PKCS#11 module in which something is wrong, and cardHelper the
// program that loads it.
var (
	faultModule testenv.FaultModule
	cardHelper  = testenv.NewHelper("luksmith-pkcs11")
)

// typing answers every question with the PIN, for an enrolment.
type typing struct{ tokens.Nobody }

func (typing) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return secret.Copy([]byte(devicePIN)), nil
}

// enrolled is a volume with a passphrase and a token that a handler made, alone or as a
// factor beside a passphrase of its own.
func enrolled(t *testing.T, h tokens.Enroller, factor bool) string {
	t.Helper()
	if factor {
		h = &combo.Handler{Types: tokens.Set{h}, AllOf: []string{h.Name(), "passphrase"}}
	}
	e, err := h.Enroll(t.Context(), &tokens.EnrollRequest{Compat: 257}, typing{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Passphrase.Wipe()
	v := luks2test.New(t, luks2test.WithPassphrase(rightPassphrase))
	v.Enroll(t, string(e.Passphrase.Bytes()), luks2.Token{Type: h.Type(), Raw: e.Token})
	return v.Path
}

// brokenDevice is a security device in which something is wrong.
type brokenDevice struct {
	name string
	// field is what was seen to happen with such a device.
	field string
	// make enrols with a device that works, spoils it, and returns the volume, the
	// option that names the device, and the handlers of the boot.
	make makeBroken
	// status and reason are what is said where nobody can be asked; tooSlow leaves that
	// out.
	status int
	reason string
	// within bounds the way to the mapping, and the end where nobody can be asked.
	within time.Duration
}

type makeBroken = func(t *testing.T, factor bool) (image, option string, types func() tokens.Set)

// tooSlow is for a TPM, which has two minutes for a command: making a key takes some
// chips nearly as long.
const tooSlow = -1

var brokenDevices = []brokenDevice{
	{"FIDO2, silent", "a silent key was called absent", fidoKey(fidotest.Config{}, func(k *fidotest.Key) { spoil(k, fidotest.Silent) }),
		cli.ExitTimedOut, "does not answer", 30 * time.Second},
	{"FIDO2, untouched", "a key that nobody touches held the boot up", fidoKey(fidotest.Config{}, func(k *fidotest.Key) { k.SetTouch(fidotest.Touch{Never: true}) }),
		cli.ExitTimedOut, "nobody answered within", 30 * time.Second},
	{"FIDO2, blocked, of family B", "0x34 for a token without PIN was called absent", fidoKey(fidotest.Config{Firmware: fidotest.CTAP20, PIN: devicePIN}, blockKey),
		cli.ExitLockout, "locked", 30 * time.Second},
	{"FIDO2, blocked, of family A", "a locked key that stays was called not present", fidoKey(fidotest.Config{Firmware: fidotest.CTAP21, PIN: devicePIN}, blockKey),
		cli.ExitLockout, "locked", 30 * time.Second},
	{"FIDO2, says that a PIN is wrong which nobody sent", "requests without end", fidoKey(fidotest.Config{}, func(k *fidotest.Key) { spoil(k, fidotest.ClaimsWrongPIN) }),
		cli.ExitTimedOut, "none was sent", 30 * time.Second},
	{"FIDO2, another secret each time", "a lying key", fidoKey(fidotest.Config{}, func(k *fidotest.Key) { spoil(k, fidotest.FickleSecret) }),
		cli.ExitNoKey, "no keyslot", 30 * time.Second},
	{"FIDO2, absent", "nobody was asked", fidoKey(fidotest.Config{}, func(k *fidotest.Key) { k.Unplug() }),
		cli.ExitTimedOut, "not present", 30 * time.Second},

	{"PKCS#11, module hangs", "nobody was asked", brokenCard("hang-initialize"), cli.ExitTimedOut, "does not answer", 30 * time.Second},
	{"PKCS#11, login hangs", "nobody was asked", brokenCard("hang-login"), cli.ExitTimedOut, "does not answer", 30 * time.Second},
	{"PKCS#11, module crashes", "a crash hid the other tokens", brokenCard("crash-initialize"), cli.ExitNoKey, "ended unexpectedly", 30 * time.Second},
	{"PKCS#11, decryption crashes", "a crash hid the other tokens", brokenCard("crash-decrypt"), cli.ExitNoKey, "ended unexpectedly", 30 * time.Second},
	{"PKCS#11, blocked", "a card was locked by answers of agents", brokenCard("locked"), cli.ExitLockout, "locked", 30 * time.Second},
	{"PKCS#11, another secret", "a lying card", brokenCard("empty-plaintext"), cli.ExitNoKey, "no keyslot", 30 * time.Second},
	{"PKCS#11, no card", "nobody was asked", brokenCard("many-slots"), cli.ExitTimedOut, "not present", 30 * time.Second},

	{"TPM, silent", "nobody was asked", brokenTPM(nil, func(c net.Conn) { time.Sleep(time.Minute) }), tooSlow, "", 30 * time.Second},
	{"TPM, nonsense", "a lying chip", brokenTPM(nil, func(c net.Conn) { _, _ = c.Write([]byte(strings.Repeat("nonsense", 100))); time.Sleep(time.Minute) }), cli.ExitNoKey, "that is no answer of a TPM", 30 * time.Second},
	{"TPM, busy for ever", "a chip that never gets ready", brokenTPM(nil, func(c net.Conn) { answerAll(c, "\x80\x01\x00\x00\x00\x0a\x00\x00\x09\x22") }), cli.ExitBusy, "busy", 60 * time.Second},
	{"TPM, locked for all", "a chip in lockout", brokenTPM(nil, func(c net.Conn) { answerAll(c, "\x80\x01\x00\x00\x00\x0a\x00\x00\x09\x21") }), cli.ExitLockout, "the TPM is locked", 30 * time.Second},
	{"TPM, in failure mode", "a chip that failed its self-test", brokenTPM(nil, func(c net.Conn) { answerAll(c, "\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01") }), cli.ExitNoKey, "failure mode", 30 * time.Second},
	{"TPM, another state", "the TPM refuses", brokenTPM(func(m *testenv.TPM) { m.Extend(7, "sha256", make([]byte, 32)) }, nil), cli.ExitPolicy, "PCR 7", 30 * time.Second},
	{"TPM, absent", "nobody was asked", brokenTPM(func(m *testenv.TPM) { m.Stop() }, nil), cli.ExitTimedOut, "not present", 30 * time.Second},
}

func spoil(k *fidotest.Key, f fidotest.Fault) {
	k.Configure(func(c *fidotest.Config) { c.Fault = f })
}

// fidoKey makes a FIDO2 key that wants a touch, and a PIN if it has one.
func fidoKey(config fidotest.Config, spoil func(*fidotest.Key)) makeBroken {
	return func(t *testing.T, factor bool) (string, string, func() tokens.Set) {
		config.TouchTimeout = 3 * time.Second
		k := fidotest.New(config)
		dial := fidotest.NewBench(k).Dial
		image := enrolled(t, &fido2.Handler{Dial: dial}, factor)
		spoil(k)
		return image, "fido2-device=auto", func() tokens.Set { return tokens.Set{&fido2.Handler{Dial: dial}} }
	}
}

// blockKey has the key refuse PINs until it is plugged in again.
func blockKey(k *fidotest.Key) {
	h := &fido2.Handler{Dial: fidotest.NewBench(k).Dial}
	_, _ = h.Enroll(context.Background(), &tokens.EnrollRequest{Compat: 257}, guessing{})
}

// guessing answers every question with a wrong PIN.
type guessing struct{ tokens.Nobody }

func (guessing) Ask(context.Context, tokens.Prompt) (secret.Secret, error) {
	return secret.Copy([]byte("000000")), nil
}

// brokenCard makes a card of software whose module has a fault at boot.
func brokenCard(fault string) makeBroken {
	return func(t *testing.T, factor bool) (string, string, func() tokens.Set) {
		store := testenv.NewSoftHSM(t)
		card := testenv.Token{Label: "card", PIN: devicePIN}
		store.AddToken(t, card)
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		store.AddKey(t, card, testenv.Key{ID: "01", Label: "rsa", Private: key})
		with := func(env []string) func(context.Context) (helper.Conn, error) {
			path := testenv.WithEnv(t, cardHelper.Path(t), env...)
			return func(ctx context.Context) (helper.Conn, error) { return helper.StartPath(ctx, path) }
		}
		image := enrolled(t, &pkcs11.Handler{Connect: with(store.Env), TokenURI: "pkcs11:object=rsa"}, factor)
		connect := with(faultModule.Env(t, store, fault))
		return image, "pkcs11-uri=auto", func() tokens.Set {
			return tokens.Set{&pkcs11.Handler{Connect: connect, Module: faultModule.Path(t), Timeout: 2 * time.Second}}
		}
	}
}

// brokenTPM seals to a TPM of software, spoils it, or puts a server in its place.
func brokenTPM(spoil func(*testenv.TPM), instead func(net.Conn)) makeBroken {
	return func(t *testing.T, factor bool) (string, string, func() tokens.Set) {
		testenv.Need(t, "swtpm")
		m := testenv.StartTPM(t, testenv.TPMOptions{})
		h := &tpm2.Handler{Paths: tpm2.Paths{Root: t.TempDir()}}
		for name, value := range map[string]string{"tpm2-device": m.Device(), "tpm2-pcrs": "7:sha256"} {
			for _, o := range h.Options() {
				if o.Name == name && o.Place&tokens.Enrolling != 0 {
					if err := o.Set(value); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		image, device := enrolled(t, h, factor), m.Device()
		if spoil != nil {
			spoil(m)
		}
		if instead != nil {
			dir, err := os.MkdirTemp("", "chip.") // its own name: in that of a test may be a comma, which ends an option
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			path := filepath.Join(dir, "chip")
			serveAt(t, path, instead)
			device = "swtpm:path=" + path
		}
		root := t.TempDir()
		return image, "tpm2-device=" + device, func() tokens.Set { return tokens.Set{&tpm2.Handler{Paths: tpm2.Paths{Root: root}}} }
	}
}

// answerAll gives the same answer to every command.
func answerAll(c net.Conn, answer string) {
	command := make([]byte, 4096)
	for {
		if _, err := c.Read(command); err != nil {
			return
		}
		if _, err := c.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// serveAt has every connection to a socket talk to f.
func serveAt(t *testing.T, path string, f func(net.Conn)) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }()
		}
	}()
}

// person answers what agents see: PINs with the PIN, the rest with the passphrase.
func (b *bench) person(t *testing.T) (asked func() []string) {
	var mu sync.Mutex
	var list []string
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go func() {
		seen := map[string]bool{}
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			files, _ := filepath.Glob(filepath.Join(b.root, "ask", "ask.*"))
			for _, f := range files {
				if seen[f] {
					continue
				}
				seen[f] = true
				q := readQuestion(f)
				mu.Lock()
				list = append(list, q["Message"])
				mu.Unlock()
				answer := rightPassphrase
				if strings.Contains(q["Message"], "PIN") || strings.Contains(q["Message"], "one of the factors") {
					answer = devicePIN
				}
				reply(q["Socket"], "+"+answer)
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, list...)
	}
}

// TestEverySecurityDeviceEndsAtAMappingOrAQuestion: whatever a device does, a person is
// asked for the passphrase and the volume is mapped; where nobody can be asked it ends
// in time, with the reason and its status.
func TestEverySecurityDeviceEndsAtAMappingOrAQuestion(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "softhsm2-util", "gcc")
	for _, d := range brokenDevices {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			d.run(t, false)
		})
		t.Run(d.name+", as a factor", func(t *testing.T) {
			t.Parallel()
			d.run(t, true)
		})
	}
}

func (d brokenDevice) run(t *testing.T, factor bool) {
	image, option, handlers := d.make(t, factor)
	types := handlers
	if factor {
		option += ",luksmith-combo=auto"
		types = func() tokens.Set { set := handlers(); return append(set, combo.New(set)) }
		if d.reason == "no keyslot" { // which shows with all factors only
			d.reason = "factor passphrase: nobody may be asked"
		}
	}
	b := newBench(t)
	b.newHandlers = types
	asked := b.person(t)
	begin := time.Now()
	_, err := b.run(t, "vol", image, "-", option+",token-timeout=2s,password-cache=no")
	if list := asked(); err != nil || len(b.mapped) != 1 || len(list) == 0 || strings.Contains(list[len(list)-1], "PIN") {
		t.Errorf("%s: %v, mapped %d times, asked %q", d.field, err, len(b.mapped), list)
	}
	if took := time.Since(begin); took > d.within {
		t.Errorf("%s: mapped after %v", d.field, took)
	}
	if d.status == tooSlow {
		return
	}
	b = newBench(t)
	b.newHandlers = types
	b.asking.PINFile = b.file(t, "pin", devicePIN)
	begin = time.Now()
	_, err = b.run(t, "vol", image, "-", option+",token-timeout=2s,headless")
	if got := cli.ExitStatus(err); err == nil || got != d.status || !strings.Contains(err.Error()+b.messages.String(), d.reason) || len(b.mapped) != 0 {
		t.Errorf("%s: where nobody can be asked: status %d, want %d with %q: %v\n%s", d.field, got, d.status, d.reason, err, b.messages)
	}
	if took := time.Since(begin); took > d.within {
		t.Errorf("%s: where nobody can be asked: ended after %v", d.field, took)
	}
}
