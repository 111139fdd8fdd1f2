package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/e2e/wire"
)

// agent serves the host.
type agent struct {
	mu        sync.Mutex // of out and processes
	out       *json.Encoder
	processes map[int]*process
}

// runAgent serves requests until the host closes the port.
func runAgent() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	a := &agent{out: json.NewEncoder(port), processes: map[int]*process{}}
	var name unix.Utsname
	_ = unix.Uname(&name)
	a.send(wire.Reply{Ready: &wire.Ready{Kernel: unix.ByteSliceToString(name.Release[:]), Uptime: uptime()}})
	for in := json.NewDecoder(port); ; {
		var r wire.Request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := a.serve(r); err != nil {
			a.send(wire.Reply{ID: r.ID, Error: err.Error()})
		}
	}
}

// openPort waits for the port of the host.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			b, _ := os.ReadFile(n)
			if strings.TrimSpace(string(b)) == wire.PortName {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
	}
	return nil, fmt.Errorf("no virtio-serial port %q", wire.PortName)
}

func (a *agent) send(r wire.Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.out.Encode(r) // the host is gone: nobody left to tell
}

// process is nil for one that has ended.
func (a *agent) process(id int) *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.processes[id]
}

func (a *agent) serve(r wire.Request) error {
	if r.File != nil {
		return writeFile(r.File)
	}
	if r.Start != nil {
		return a.start(r.ID, r.Start)
	}
	p := a.process(r.ID)
	if p == nil {
		return nil // its end, or that it never started, is on the way to the host
	}
	err := p.tell(r)
	for _, ended := range []error{os.ErrProcessDone, os.ErrClosed, unix.EPIPE, unix.EIO} {
		if errors.Is(err, ended) {
			return nil // likewise
		}
	}
	return err
}

func (p *process) tell(r wire.Request) error {
	switch {
	case r.EndInput:
		return p.input.Close()
	case r.Signal != 0:
		return p.cmd.Process.Signal(unix.Signal(r.Signal))
	default:
		_, err := p.input.Write(r.Input)
		return err
	}
}

// writeFile leaves either the whole file or the old one.
func writeFile(f *wire.File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(f.Path+".new", f.Data, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(f.Path+".new", os.FileMode(f.Mode)); err != nil {
		return err
	}
	return os.Rename(f.Path+".new", f.Path)
}
