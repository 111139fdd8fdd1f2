package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/version"
	"luksmith/luks2/secret"
)

// ErrNotInstalled means that the helper is absent, is of another version, or
// cannot start, for example for want of a shared library. The text says which.
var ErrNotInstalled = errors.New("helper not installed")

// ErrCrashed means that the helper ended before it answered: a fault in a C
// library or module, or somebody killed it.
var ErrCrashed = errors.New("helper program ended unexpectedly")

// Conn is a session with a helper. *Process is the real one; tests use Pipe.
type Conn interface {
	// Call sends one request and waits for its answer, which it decodes into
	// result (nil to ignore). The caller wipes the returned secrets. A failure
	// reported by the helper is an *Error. When ctx ends the session is over:
	// the process is killed and the error is that of ctx.
	Call(ctx context.Context, c Call, result any) ([]secret.Secret, error)
	// Close ends the session and waits until the process is gone. A process
	// that does not go by itself is killed.
	Close() error
}

// Call is one request.
type Call struct {
	Method  string
	Params  any
	Secrets []secret.Secret // borrowed
	// OnEvent is called for each notice that the helper sends before its answer,
	// such as "touch". May be nil. It must not block.
	OnEvent func(event string)
}

// grace is how long a helper may take to end after its input was closed: enough
// to release a device, short enough that nobody notices.
const grace = 300 * time.Millisecond

// Process is a running helper.
type Process struct {
	name   string
	in     io.WriteCloser
	out    *os.File
	cmd    *exec.Cmd
	stderr *head
	exited chan struct{} // closed when the process was reaped
	mu     sync.Mutex    // one call at a time
	broken error         // set once the session cannot be used any more
}

// Start finds and starts a helper and checks its greeting. The process gets no
// secret in arguments or environment, dies with the calling program (Pdeathsig)
// and must greet within ctx.
func Start(ctx context.Context, name string) (*Process, error) {
	path, err := Find(name)
	if err != nil {
		return nil, err
	}
	return StartPath(ctx, path)
}

// StartPath is Start for an executable that is known already.
func StartPath(ctx context.Context, path string) (*Process, error) {
	p := &Process{name: filepath.Base(path), exited: make(chan struct{}), stderr: &head{limit: 4096}}
	cmd := exec.Command(path)
	cmd.Env = environment(os.Environ())
	cmd.Stderr = p.stderr
	// A group of its own, so that what a module starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = grace
	// Pipes of our own and not cmd.StdoutPipe: Wait, which runs beside the
	// session, would close that one under the reader.
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		_, _ = childIn.Close(), in.Close()
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	cmd.Stdin, cmd.Stdout = childIn, childOut
	p.cmd, p.in, p.out = cmd, in, out
	err = p.launch()
	_, _ = childIn.Close(), childOut.Close() // or the end of the child would not be seen
	if err != nil {
		_, _ = in.Close(), out.Close()
		return nil, startError(path, err)
	}
	if err := p.greet(ctx); err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// startError tells a helper that cannot be run from a machine or user that has no
// room for another process or file.
func startError(path string, err error) error {
	err = fmt.Errorf("starting %s: %w", path, err)
	for _, full := range []error{unix.EMFILE, unix.ENFILE, unix.EAGAIN, unix.ENOMEM} {
		if errors.Is(err, full) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrNotInstalled, err)
}

// launch starts the process from a thread that stays until the process ends,
// because Pdeathsig fires when the *thread* that started it goes.
func (p *Process) launch() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.reap()
	}()
	return <-started
}

// reap waits for the end of the process and ends its group with it. Programs that
// left the group cannot keep a caller waiting: reading ends soon, too.
func (p *Process) reap() {
	pid := p.cmd.Process.Pid
	for {
		// The process stays a zombie for now, so that its number is not another's.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	_ = p.out.SetReadDeadline(time.Now().Add(grace))
	_ = p.cmd.Wait() // how it ended is in p.cmd.ProcessState
	close(p.exited)
}

func (p *Process) greet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	hello, secrets, err := receive(p.out)
	secret.WipeAll(secrets)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("starting %s: %w", p.name, ctx.Err())
	case err != nil:
		return p.notStarted()
	case hello.Name != p.name:
		return fmt.Errorf("%w: %s calls itself %q", ErrNotInstalled, p.name, hello.Name)
	case hello.Version != version.Version:
		return fmt.Errorf("%w: %s is version %s, this program is version %s", ErrNotInstalled, p.name, hello.Version, version.Version)
	}
	return nil
}

// notStarted is the error of a process that ended before it greeted: a library is
// missing, or it crashed, for example for want of threads.
func (p *Process) notStarted() error {
	kind, words := ErrNotInstalled, p.lastWords()
	if crashReport(words) {
		kind = ErrCrashed
	}
	return fmt.Errorf("%w: %s does not start: %s", kind, p.name, words)
}

// Call implements Conn.
func (p *Process) Call(ctx context.Context, c Call, result any) ([]secret.Secret, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return nil, p.broken
	}
	stop := context.AfterFunc(ctx, p.kill)
	secrets, err := exchange(p.in, p.out, c, result)
	if !stop() {
		secret.WipeAll(secrets)
		p.kill() // waits for the one that AfterFunc started
		p.broken = fmt.Errorf("%s: %s: %w", p.name, c.Method, context.Cause(ctx))
		return nil, p.broken
	}
	var reported *Error
	if err != nil && !errors.As(err, &reported) {
		p.broken = err
		p.kill()
		if !errors.Is(err, ErrProtocol) {
			p.broken = fmt.Errorf("%w: %s during %s: %s", ErrCrashed, p.name, c.Method, p.lastWords())
		}
		return nil, p.broken
	}
	return secrets, err
}

// exchange is one request and its answer, without any policy.
func exchange(w io.Writer, r io.Reader, c Call, result any) ([]secret.Secret, error) {
	params, err := json.Marshal(c.Params)
	if err != nil {
		return nil, fmt.Errorf("%w: encoding %s: %w", ErrProtocol, c.Method, err)
	}
	if err := send(w, &message{Method: c.Method, Params: params}, c.Secrets); err != nil {
		return nil, err
	}
	for {
		m, secrets, err := receive(r)
		switch {
		case err != nil:
			return nil, err
		case m.Event != "":
			secret.WipeAll(secrets)
			if c.OnEvent != nil {
				c.OnEvent(m.Event)
			}
			continue
		case m.Error != nil:
			secret.WipeAll(secrets)
			return nil, m.Error
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				secret.WipeAll(secrets)
				return nil, fmt.Errorf("%w: answer to %s: %w", ErrProtocol, c.Method, err)
			}
		}
		return secrets, nil
	}
}

// kill ends the process: politely by closing its input, then by signal.
func (p *Process) kill() {
	_ = p.in.Close()
	select {
	case <-p.exited:
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	_ = p.out.Close()
}

// Close implements Conn.
func (p *Process) Close() error {
	p.kill()
	return nil
}

// lastWords is what is known about a process that ended early: the telling line
// of what it wrote to stderr, or its exit status.
func (p *Process) lastWords() string {
	p.kill()
	if line := p.stderr.tellingLine(); line != "" {
		return line
	}
	return p.cmd.ProcessState.String()
}

// environment is what a helper inherits: everything but the variables that carry
// secrets to the command itself, and those that would have the dynamic linker load
// other libraries than the system's into a program that gets a PIN.
func environment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "LD_") ||
			slices.Contains([]string{"PASSWORD", "NEWPASSWORD", "PIN", "NEWPIN", "CREDENTIALS_DIRECTORY"}, name)
	})
}

// head keeps the beginning of what is written to it.
type head struct {
	mu    sync.Mutex
	limit int
	buf   []byte
}

func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf = append(h.buf, b[:min(len(b), h.limit-len(h.buf))]...)
	return len(b), nil
}

// tellingLine is the first line of a crash report of the Go runtime, which a fault
// in a C library produces too, or else the last line.
func (h *head) tellingLine() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(h.buf)) {
		line = strings.TrimSpace(line)
		if crashReport(line) {
			return line
		}
		if line != "" {
			last = line
		}
	}
	return last
}

// crashReport reports whether a line is the first of the Go runtime's words about a
// crash.
func crashReport(line string) bool {
	return slices.ContainsFunc([]string{"SIG", "panic:", "fatal error:", "runtime:"}, func(mark string) bool { return strings.HasPrefix(line, mark) })
}
