package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// result is what a run of the command came to.
type result struct {
	status         int
	stdout, stderr string
}

// alone prepares the command as a process without terminal and credentials.
func alone(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Args[0] = "cryptenroll" // TestMain runs the command under this name
	cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8", "LUKSMITH_TEST_COMMAND=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func runCommand(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("%v: %v, %v", cmd.Args, err, exit)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// must runs the command with the passphrase at hand and wants success.
func must(t testing.TB, args ...string) result {
	t.Helper()
	r := runCommand(t, alone(t, []string{"PASSWORD=hunter2", "NEWPIN=4711"}, args...))
	if r.status != 0 {
		t.Fatalf("cryptenroll %q: exit status %d\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAbsentTPMIsNotMentionedBeforeTheQuestion: it matters only to somebody who cannot
// answer the question either.
func TestAbsentTPMIsNotMentionedBeforeTheQuestion(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	if chips, _ := filepath.Glob("/sys/class/tpmrm/*"); len(chips) > 0 {
		testenv.NotApplicable(t, "this machine has a TPM")
	}
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	must(t, "--tpm2-device="+chip.Device(), "--label=laptop", v.Path)
	p := sit(t, "--recovery-key", v.Path)
	p.sees(`current passphrase for disk`)
	p.types("hunter2\r")
	p.sees(`Enrolled keyslot 2`)
	p.ends(0)
	if text := p.text(); strings.Contains(text, "no TPM") {
		t.Errorf("the TPM is mentioned:\n%s", text)
	}
	for _, more := range []string{"--yes", "--unlock-headless"} { // nobody answers
		if r := runCommand(t, alone(t, nil, "--recovery-key", more, v.Path)); r.status != 2 || !strings.Contains(r.stderr, "error: no TPM in /sys/class/tpmrm") {
			t.Errorf("%s: status %d\n%s", more, r.status, r.stderr)
		}
	}
}

// TestPersonAndPIN is a life with a TPM and a PIN: enrolled, mistyped, an update,
// re-sealed, locked out.
func TestPersonAndPIN(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	enroll := sit(t, "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", "--tpm2-with-pin=direct", "--compat=257", "--label=laptop", v.Path)
	enroll.sees(`current passphrase for disk`)
	enroll.types("hunter2\r")
	enroll.sees(`New PIN of the TPM:`)
	enroll.types("834719\r")
	enroll.sees(`New PIN of the TPM \(repeat\):`)
	enroll.types("834719\r")
	enroll.sees(`Enrolled (".*", )?keyslot 1 of .*: TPM2, PCR 7\+11, PIN`)
	enroll.sees(`to unlock: PCR 7\+11 \(sha256\), PIN`)
	enroll.ends(0)

	unlock := []string{"test", "--unlock-tpm2-device=" + chip.Device(), v.Path}
	p := sit(t, unlock...)
	p.sees(`PIN of the TPM "laptop" for .*3 tries left`)
	p.types("000000\r")
	p.sees(`Wrong PIN, please try again\. .*PIN of the TPM "laptop" for .*2 tries left`)
	p.types("834719\r")
	p.ends(0)
	list := []string{"--tpm2-device=" + chip.Device(), "--tpm2-device=list"}
	if r := must(t, list...); !strings.Contains(r.stdout, " 1 of 3 ") || !strings.Contains(r.stdout, "in at most 16 min 40 s") {
		t.Errorf("after one wrong PIN:\n%s", r.stdout)
	}

	chip.Extend(11, "sha256", make([]byte, 32))
	moved := sit(t, unlock...) // nobody is asked
	moved.sees(`keyslot 1 \(tpm2, "laptop"\): PCR 11 \(kernel-boot\) changed: 00000000… -> [0-9a-f]{8}…`)
	moved.sees(`hint: .*cryptenroll reseal `)
	moved.ends(7)
	reseal := sit(t, "reseal", "--tpm2-pcrs-as-they-are", "--tpm2-device="+chip.Device(), v.Path)
	reseal.sees(`keyslot 1 \(tpm2, "laptop"\): PCR 11 \(kernel-boot\) changed`)
	reseal.sees(`current passphrase for disk`)
	reseal.types("hunter2\r")
	reseal.sees(`PIN of the TPM "laptop" for .*2 tries left`)
	reseal.types("834719\r")
	reseal.sees(`Re-sealed keyslot 1 \(tpm2, "laptop"\) of .*; the old key is wiped to unlock: `)
	reseal.ends(0)

	locked := sit(t, unlock...)
	locked.sees(`2 tries left`)
	locked.types("1\r")
	locked.sees(`last try before the device locks itself\. .*last try:`)
	locked.types("2\r")
	locked.sees(`the TPM is locked \(3 of 3 tries used up by wrong PINs or power cuts\); it forgets one every 16 min 40 s`)
	locked.ends(8)
	again := sit(t, unlock...) // nobody is asked
	again.sees(`error: keyslot 1 .* locked \(3 of 3 `)
	again.ends(8)
	for _, p := range []*person{enroll, p, reseal, locked} {
		if screen := p.screen.String(); strings.Contains(screen, "834719") || strings.Contains(screen, "hunter2") {
			t.Errorf("a secret is on the terminal:\n%s", screen)
		}
	}
}

// TestTPMGoesAwayDuringTheQuestion pulls the chip while a person types the PIN.
func TestTPMGoesAwayDuringTheQuestion(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	must(t, "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7", "--tpm2-with-pin=direct", "--compat=257", v.Path)
	before := content(t, v.Path)
	for _, args := range [][]string{{"test", "--unlock-tpm2-device=" + chip.Device(), v.Path}, {"reseal", "--tpm2-pcrs-as-they-are", "--tpm2-device=" + chip.Device(), v.Path}} {
		p := sit(t, args...)
		p.sees(`PIN of the TPM .*(tries left|last try)`) // a chip that loses power counts one
		chip.Kill()
		p.types("4711\r")
		if args[0] == "reseal" { // the volume can still be opened
			p.sees(`warning: .*talking to the TPM: security device not present`)
			p.sees(`current passphrase`)
			p.types("hunter2\r")
		}
		p.sees(`error: .*security device not present`)
		p.sees(`hint: `)
		p.ends(6)
		chip.Start()
	}
	if !bytes.Equal(before, content(t, v.Path)) {
		t.Error("the volume was changed")
	}
	if r := runCommand(t, alone(t, []string{"PIN=4711"}, "test", "--unlock-tpm2-device="+chip.Device(), v.Path)); r.status != 0 {
		t.Errorf("afterwards: exit status %d\n%s", r.status, r.stderr)
	}
}

// TestTPMThatAnswersGarbage talks to something that is not a TPM.
func TestTPMThatAnswersGarbage(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	must(t, "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7", "--compat=257", v.Path)
	before := content(t, v.Path)
	random := rand.NewChaCha8([32]byte{})
	framed := func(tag uint16, n int, rc uint32) []byte {
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, tag), uint32(n))
		b = append(binary.BigEndian.AppendUint32(b, rc), make([]byte, n-10)...)
		_, _ = random.Read(b[10:])
		return b
	}
	for name, answer := range map[string]func(command []byte) []byte{
		"noise":            func([]byte) []byte { b := make([]byte, 300); _, _ = random.Read(b); return b },
		"success, noise":   func(c []byte) []byte { return framed(binary.BigEndian.Uint16(c), 400, 0) },
		"success, nothing": func(c []byte) []byte { return framed(binary.BigEndian.Uint16(c), 10, 0) },
		"another tag":      func([]byte) []byte { return framed(0x8003, 40, 0) },
		"unknown code":     func([]byte) []byte { return framed(0x8001, 10, 0xffffffff) },
		"huge":             func([]byte) []byte { return []byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0} },
		"short":            func([]byte) []byte { return []byte{0x80, 1, 0, 0, 0, 3, 0, 0, 0, 0} },
		"the command":      func(c []byte) []byte { return c },
	} {
		path := fakeTPM(t, answer)
		for _, args := range [][]string{
			{"test", "--unlock-tpm2-device=" + path, v.Path}, {"--tpm2-device=" + path, "--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", v.Path},
			{"reseal", "--tpm2-pcrs-as-they-are", "--tpm2-device=" + path, v.Path}, {"--tpm2-device=" + path, "--tpm2-device=list"},
		} {
			began := time.Now()
			r := runCommand(t, alone(t, []string{"PASSWORD=hunter2"}, args...))
			if args[len(args)-1] != v.Path { // list shows what it has, or nothing
				r.status++
			}
			if r.status == 0 || strings.Contains(r.stderr, "goroutine") || time.Since(began) > 30*time.Second {
				t.Errorf("%s, %q: exit status %d after %v\n%s%s", name, args[0], r.status, time.Since(began), r.stdout, r.stderr)
			}
		}
	}
	if !bytes.Equal(before, content(t, v.Path)) {
		t.Error("the volume was changed")
	}
}

// fakeTPM answers every command as it is told to. It returns the device.
func fakeTPM(t testing.TB, answer func(command []byte) []byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fake.") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "tpm"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			command := make([]byte, 4096)
			for {
				n, err := conn.Read(command)
				if err != nil || n < 10 {
					break
				}
				if _, err := conn.Write(answer(command[:n])); err != nil {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	return "swtpm:path=" + filepath.Join(dir, "tpm")
}

// TestResealIsKilledAtEveryWrite ends the command at each of its writes to the
// volume in turn: the old token opens the volume in the old state or the new one in
// the new state, and the passphrase always does.
func TestResealIsKilledAtEveryWrite(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "swtpm", "strace")
	v, chip := luks2test.New(t), testenv.StartTPM(t, testenv.TPMOptions{})
	must(t, "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", "--compat=257", v.Path)
	original := content(t, v.Path)
	opens := func() bool {
		return runCommand(t, alone(t, nil, "test", "--unlock-tpm2-device="+chip.Device(), v.Path)).status == 0
	}
	update := make([]byte, 32)
	old, renewed := 0, 0
	for write := 1; ; write++ {
		if write > 100 {
			t.Fatal("the command never ends by itself")
		}
		if err := os.WriteFile(v.Path, original, 0o600); err != nil {
			t.Fatal(err)
		}
		chip.Reset()
		chip.Extend(11, "sha256", update)
		cmd := alone(t, []string{"PASSWORD=hunter2"}, "reseal", "--tpm2-pcrs-as-they-are", "--tpm2-device="+chip.Device(), v.Path)
		strace := exec.CommandContext(t.Context(), "strace", append([]string{"-f", "-o", "/dev/null", "-e", "trace=pwrite64",
			"-e", fmt.Sprintf("inject=pwrite64:signal=KILL:when=%d", write), "-E", "LUKSMITH_TEST_COMMAND=1", cmd.Path}, cmd.Args[1:]...)...)
		strace.Env, strace.SysProcAttr = cmd.Env, cmd.SysProcAttr
		r := runCommand(t, strace)
		chip.Reset() // the kernel would flush what a killed program loaded
		chip.Extend(11, "sha256", update)
		if opens() {
			renewed++
		} else {
			chip.Reset()
			if !opens() {
				t.Errorf("killed at write %d: neither the old nor the new token opens the volume", write)
			}
			old++
		}
		if !v.Opens(t, "hunter2") {
			t.Errorf("killed at write %d: the passphrase does not open the volume", write)
		}
		if r.status == 0 {
			break
		}
	}
	t.Logf("the old token opened after %d of the kills, the new one after %d", old, renewed-1)
	if old == 0 || renewed < 2 {
		t.Errorf("old %d, new %d: the kills did not fall on both sides of the update", old, renewed)
	}
}
