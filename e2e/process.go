package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"luksmith/e2e/wire"
)

// runTimeout is the longest that a process of the guest may take, unless it runs
// the tests of a package.
const runTimeout = 2 * time.Minute

// Command is a program to run in the guest.
type Command struct {
	Args     []string // Args[0] is looked up in the guest's PATH
	Env      []string
	Dir      string
	Input    string      // its standard input, which then ends
	KeepOpen bool        // standard input stays open for Process.Write
	Terminal bool        // standard input, output and error are a terminal of its own
	Type     []wire.Keys // what is typed there by the guest
}

// Process is a program that runs or ran in the guest.
type Process struct {
	vm      *VM
	id      int
	args    []string
	mu      sync.Mutex
	out     [2]strings.Builder
	changed chan struct{} // closed and replaced when something arrives
	exit    *wire.Exit
	err     string
}

// Result is how a process ended and what it wrote.
type Result struct {
	wire.Exit
	Stdout, Stderr string
}

// CPU is user and system time together.
func (r Result) CPU() time.Duration { return r.User + r.System }

// Start runs a program without waiting for it.
func (vm *VM) Start(t testing.TB, c Command) *Process {
	t.Helper()
	vm.mu.Lock()
	vm.lastID++
	p := &Process{vm: vm, id: vm.lastID, args: c.Args, changed: make(chan struct{})}
	vm.processes[p.id] = p
	vm.mu.Unlock()
	err := vm.send(wire.Request{ID: p.id, Start: &wire.Start{Args: c.Args, Env: c.Env, Dir: c.Dir, Terminal: c.Terminal, Type: c.Type}})
	if err != nil {
		t.Fatalf("starting %v in the guest: %v", c.Args, err)
	}
	if c.Input != "" {
		p.Write(t, c.Input)
	}
	if !c.KeepOpen && !c.Terminal {
		p.request(t, wire.Request{ID: p.id, EndInput: true})
	}
	return p
}

// Run runs a program and ends the test unless its exit status is 0.
func (vm *VM) Run(t testing.TB, args ...string) Result {
	t.Helper()
	r := vm.Try(t, args...)
	if r.Status != 0 {
		t.Fatalf("in the guest: %v: exit status %d\n%s%s", args, r.Status, r.Stdout, r.Stderr)
	}
	return r
}

// Try runs a program, whatever its exit status.
func (vm *VM) Try(t testing.TB, args ...string) Result {
	t.Helper()
	return vm.Start(t, Command{Args: args}).Wait(t)
}

// Shell runs a script of busybox sh that stops at the first failure.
func (vm *VM) Shell(t testing.TB, script string) Result {
	t.Helper()
	return vm.Run(t, "sh", "-euc", script)
}

// WriteFile makes or replaces a file of the guest.
func (vm *VM) WriteFile(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := vm.send(wire.Request{File: &wire.File{Path: path, Data: data, Mode: uint32(mode)}}); err != nil {
		t.Fatal(err)
	}
}

func (p *Process) receive(r wire.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.Exit != nil:
		p.exit = r.Exit
	case r.Error != "":
		p.err = r.Error
	default:
		p.out[r.Stream-1].Write(r.Output)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Process) request(t testing.TB, r wire.Request) {
	t.Helper()
	if err := p.vm.send(r); err != nil {
		t.Fatalf("in the guest: %v: %v", p.args, err)
	}
}

// Write sends text to standard input or the terminal.
func (p *Process) Write(t testing.TB, text string) {
	t.Helper()
	p.request(t, wire.Request{ID: p.id, Input: []byte(text)})
}

// Signal sends a signal to the process.
func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	p.request(t, wire.Request{ID: p.id, Signal: int(s)})
}

// until waits for a condition on the process, which holds p.mu.
func (p *Process) until(timeout time.Duration, done func() bool) bool {
	expired := time.After(timeout)
	for {
		p.mu.Lock()
		ok, changed := done(), p.changed
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-expired:
			return false
		}
	}
}

// Wait waits for the end of the process.
func (p *Process) Wait(t testing.TB) Result {
	t.Helper()
	return p.waitFor(t, runTimeout)
}

func (p *Process) waitFor(t testing.TB, timeout time.Duration) Result {
	t.Helper()
	done := p.until(timeout, func() bool { return p.exit != nil || p.err != "" })
	p.vm.mu.Lock()
	delete(p.vm.processes, p.id)
	p.vm.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	out, errOut := p.out[0].String(), p.out[1].String()
	if !done {
		t.Fatalf("in the guest: %v: still running after %v\n%s%s", p.args, timeout, out, errOut)
	}
	if p.exit == nil {
		t.Fatalf("in the guest: %v: %s", p.args, p.err)
	}
	return Result{*p.exit, out, errOut}
}

// Running reports whether the process has not ended yet.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit == nil && p.err == ""
}

// Output is what the process has written to standard output so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out[0].String()
}

// Expect waits until the output, standard output and error one after the other,
// matches a pattern, and returns the match with its groups. The test ends when it
// does not come within the timeout or the process ends without it.
func (p *Process) Expect(t testing.TB, pattern string, timeout time.Duration) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var match []string
	p.until(timeout, func() bool {
		match = re.FindStringSubmatch(p.out[0].String() + p.out[1].String())
		return match != nil || p.exit != nil || p.err != ""
	})
	if match == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Fatalf("in the guest: %v: no %q within %v:\n%s", p.args, pattern, timeout, fmt.Sprint(p.out[0].String(), p.out[1].String(), p.err))
	}
	return match
}
