package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"

	"luksmith/e2e/wire"
)

// process is one program that the host started.
type process struct {
	cmd     *exec.Cmd
	input   io.WriteCloser // its standard input, or the terminal
	started time.Duration
}

// start runs a program and reports its output and end to the host.
func (a *agent) start(id int, s *wire.Start) error {
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Dir = s.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	run := startPiped
	if s.Terminal {
		run = startOnTerminal
	}
	p, outputs, err := run(cmd)
	if err != nil {
		return err
	}
	for _, k := range s.Type {
		time.AfterFunc(k.After, func() { _, _ = p.input.Write(k.Text) }) // to nobody, when it has ended
	}
	a.mu.Lock()
	a.processes[id] = p
	a.mu.Unlock()
	go a.follow(id, p, outputs)
	return nil
}

func startPiped(cmd *exec.Cmd) (*process, []io.Reader, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	errOut, err := cmd.StderrPipe()
	if err != nil {
		return nil, nil, err
	}
	p := &process{cmd: cmd, input: in, started: uptime()}
	return p, []io.Reader{out, errOut}, cmd.Start()
}

func startOnTerminal(cmd *exec.Cmd) (*process, []io.Reader, error) {
	p := &process{cmd: cmd, started: uptime()}
	tty, err := pty.Start(cmd)
	p.input = tty
	return p, []io.Reader{tty}, err
}

// follow passes the output on until the process has ended.
func (a *agent) follow(id int, p *process, outputs []io.Reader) {
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for i, r := range outputs {
		wg.Go(func() { a.copyOutput(id, i+1, r) })
	}
	go func() { wg.Wait(); close(ended) }()
	state, _ := p.cmd.Process.Wait()
	end := uptime()
	select {
	case <-ended:
	case <-time.After(time.Second): // a daemon that it left behind holds the pipe
	}
	a.mu.Lock()
	delete(a.processes, id)
	a.mu.Unlock()
	a.send(wire.Reply{ID: id, Exit: exitOf(state, p.started, end)})
	_ = p.input.Close()
}

func (a *agent) copyOutput(id, stream int, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			a.send(wire.Reply{ID: id, Stream: stream, Output: buf[:n]})
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return // EOF, or EIO from a terminal that nobody has open any more
		}
	}
}

func exitOf(state *os.ProcessState, started, ended time.Duration) *wire.Exit {
	e := &wire.Exit{Status: 255, Started: started, Ended: ended}
	if state == nil {
		return e
	}
	e.Status = state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Status = 128 + int(ws.Signal())
	}
	e.User, e.System = state.UserTime(), state.SystemTime()
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok {
		e.MaxRSS = int64(ru.Maxrss) // an int32 on some processors
	}
	return e
}
