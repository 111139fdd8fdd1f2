package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens"
)

// childTakesEnvironment moves $PIN and $PASSWORD away.
func childTakesEnvironment() error {
	before := os.Getenv("OTHER")
	e := TakeEnvironment("PIN", "PASSWORD", "ABSENT")
	s, err := New(Options{Prefix: "cryptenroll", Environment: e, Headless: true}).Ask(context.Background(), tokens.Prompt{Text: "PIN", Credential: "tpm2-pin"})
	if err != nil {
		return err
	}
	_, pin := os.LookupEnv("PIN")
	say(fmt.Sprintf("%d bytes, $PIN set: %v, other: %v", s.Len(), pin, before == os.Getenv("OTHER")))
	pause()
	s.Wipe()
	e.Close()
	say("wiped")
	pause()
	return nil
}

// inMemory counts how often text stands in the memory of a process.
func inMemory(t *testing.T, pid int, text string) int {
	t.Helper()
	if raceDetector {
		testenv.NotApplicable(t, "the race detector has copies of its own")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, os.ErrPermission) {
		testenv.NotApplicable(t, "may not read the memory of a child")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	count := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[1] != 'w' {
			continue
		}
		const chunk = 1 << 20
		for at := from; at < to; at += chunk {
			buf := make([]byte, min(chunk+int64(len(text))-1, to-at))
			n, _ := mem.ReadAt(buf, at)
			if found := strings.Count(string(buf[:n]), text); found > 0 {
				t.Logf("%q stands %d times in %s", text, found, strings.TrimSpace(line))
				count += found
			}
		}
	}
	return count
}

func TestTypedSecretLeavesMemory(t *testing.T) {
	t.Parallel()
	const typed = "correct horse battery staple"
	c := startChild(t, "ask")
	c.asks()
	c.types(typed[:10])
	c.shows("PIN: **********")
	c.types("zzz\x7f\x7f\x7f" + typed[10:] + "\n")
	c.said("answer of")
	if n := inMemory(t, c.cmd.Process.Pid, typed[:14]); n != 1 {
		t.Errorf("%d copies of the answer, want the one of the caller", n)
	}
	c.goOn()
	c.said("wiped")
	for _, part := range []string{typed[:6], typed[10:18], typed[len(typed)-6:]} {
		if n := inMemory(t, c.cmd.Process.Pid, part); n != 0 {
			t.Errorf("%d copies of %q after Wipe", n, part)
		}
	}
}

func TestHalfTypedTextLeavesMemory(t *testing.T) {
	t.Parallel()
	c := startChild(t, "ask twice")
	c.asks()
	c.types("correct horse battery")
	c.shows("PIN: *********************")
	c.goOn()
	c.said("withdrawn")
	if n := inMemory(t, c.cmd.Process.Pid, "horse b"); n != 0 {
		t.Errorf("%d copies after the question was withdrawn", n)
	}
}

// staticBinary is this test binary without a C library, as the commands are. A C
// library goes through the environment at start and leaves pieces of it in vector
// registers, which Go never overwrites and the kernel copies to the stack with a
// signal.
func staticBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	testenv.Need(t, "go")
	path := filepath.Join(t.TempDir(), "static.test")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func TestEnvironmentIsTaken(t *testing.T) {
	t.Parallel()
	c := startProgram(t, []string{staticBinary(t)}, "environment", "PIN=correct horse battery", "OTHER=stays", "PASSWORD=staple staple")
	environ := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	c.said("21 bytes, $PIN set: false, other: true")
	if e := environ(); strings.Contains(e, "horse") || strings.Contains(e, "staple") || !strings.Contains(e, "OTHER=stays") || !strings.Contains(e, "PIN=\x00") {
		t.Errorf("/proc/PID/environ is %q", e)
	}
	c.goOn()
	c.said("wiped")
	for _, part := range []string{"horse batt", "staple sta"} {
		if n := inMemory(t, c.cmd.Process.Pid, part); n != 0 {
			t.Errorf("%d copies of %q", n, part)
		}
	}
}
