package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CopiesIn counts how often each text occurs in the writable memory of another
// process, heap, stacks and environment included. The keys of both maps are names
// for the texts.
func CopiesIn(t testing.TB, pid int, texts map[string]string) map[string]int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	counts := make(map[string]int)
	for line := range strings.Lines(string(maps)) {
		from, to, ok := writable(line)
		if !ok {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, int64(from)) // what cannot be read was never touched
		for name, text := range texts {
			counts[name] += bytes.Count(b[:n], []byte(text))
		}
	}
	return counts
}

// exitDelay is how long a process of [HoldAtExit] stays there, in seconds, unless
// the test ends it.
const exitDelay = 60

// HoldAtExit changes a command that has not been started so that its process stops
// when it asks the kernel to end, with all its memory in place. It runs under
// strace.
func HoldAtExit(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	Need(t, "strace")
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "strace")
	cmd.Args = append([]string{"strace", "-f", "-o", log, "-e", "trace=exit_group", "-e",
		fmt.Sprintf("inject=exit_group:delay_enter=%ds", exitDelay), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
}

// AtExit waits until a command that was started after [HoldAtExit] is at its end,
// and returns the number of its process. Ending the command's own process, which is
// that of strace, lets it go on.
func AtExit(t testing.TB, cmd *exec.Cmd) int {
	t.Helper()
	tracer := cmd.Process.Pid
	for deadline := time.Now().Add(exitDelay * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", tracer, tracer))
		if err != nil {
			t.Fatalf("the command ended: %v", err)
		}
		for _, child := range strings.Fields(string(children)) {
			if runsCommand(tracer, child) && exiting(child) {
				pid, err := strconv.Atoi(child)
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
	}
	t.Fatal("the command does not come to its end")
	return 0
}

// runsCommand reports whether a child of strace runs the command: while it starts,
// strace has children that try out what the kernel can and end at once.
func runsCommand(tracer int, child string) bool {
	strace, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", tracer))
	if err != nil {
		return false
	}
	program, err := os.Readlink(filepath.Join("/proc", child, "exe"))
	return err == nil && program != strace
}

// exiting reports whether a thread of the process is held where it calls
// exit_group.
func exiting(pid string) bool {
	threads, _ := filepath.Glob(filepath.Join("/proc", pid, "task/*/syscall"))
	for _, path := range threads {
		state, err := os.ReadFile(path)
		number, _, _ := strings.Cut(string(state), " ")
		if err == nil && number == strconv.Itoa(unix.SYS_EXIT_GROUP) {
			return true
		}
	}
	return false
}
