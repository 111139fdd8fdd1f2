package helper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"luksmith/internal/version"
	"luksmith/luks2/secret"
)

// Request is what a helper's method gets. The secrets are wiped after it returns.
type Request struct {
	Params  json.RawMessage
	Secrets []secret.Secret
	// Notify sends an event to the caller before the answer.
	Notify func(event string)
}

// Decode unpacks the parameters.
func (r *Request) Decode(v any) error {
	if err := json.Unmarshal(r.Params, v); err != nil {
		return &Error{Code: "bad-request", Message: fmt.Sprintf("decoding parameters: %v", err)}
	}
	return nil
}

// Reply is a method's answer. The secrets are wiped after they were sent.
type Reply struct {
	Result  any
	Secrets []secret.Secret
}

// Method answers one kind of request. A returned *Error reaches the caller as it
// is; any other error under the code "failed". ctx ends when the caller closed the
// session, which is the moment to cancel what the device is doing.
type Method func(ctx context.Context, r *Request) (*Reply, error)

// Serve greets and answers requests one after the other until in ends. It is the
// main loop of a helper program, on its stdin and stdout.
func Serve(name string, in io.Reader, out io.Writer, methods map[string]Method) error {
	var mu sync.Mutex // events and answers must not mix
	write := func(m *message, secrets []secret.Secret) error {
		mu.Lock()
		defer mu.Unlock()
		return send(out, m, secrets)
	}
	if err := write(&message{Name: name, Version: version.Version}, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type incoming struct {
		m       *message
		secrets []secret.Secret
		err     error
	}
	requests, served := make(chan incoming), make(chan struct{})
	defer close(served)
	// Reading goes on while a method runs, so that the end of input cancels it.
	go func() {
		for {
			m, secrets, err := receive(in)
			if err != nil {
				cancel()
			}
			select {
			case requests <- incoming{m, secrets, err}:
			case <-served:
				secret.WipeAll(secrets)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		r := <-requests
		if errors.Is(r.err, io.EOF) {
			return nil
		}
		if r.err != nil {
			return r.err
		}
		answer, secrets := call(ctx, methods, r.m, &Request{
			Params: r.m.Params, Secrets: r.secrets,
			Notify: func(event string) { _ = write(&message{Event: event}, nil) },
		})
		secret.WipeAll(r.secrets)
		err := write(answer, secrets)
		secret.WipeAll(secrets)
		if err != nil {
			return err
		}
	}
}

func call(ctx context.Context, methods map[string]Method, m *message, r *Request) (*message, []secret.Secret) {
	method := methods[m.Method]
	if method == nil {
		return &message{Error: &Error{Code: "bad-request", Message: fmt.Sprintf("no method %q", m.Method)}}, nil
	}
	reply, err := method(ctx, r)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: "failed", Message: err.Error()}
		}
		return &message{Error: e}, nil
	}
	if reply == nil {
		reply = &Reply{}
	}
	result, err := json.Marshal(reply.Result)
	if err != nil {
		secret.WipeAll(reply.Secrets)
		return &message{Error: &Error{Code: "failed", Message: err.Error()}}, nil
	}
	return &message{Result: result}, reply.Secrets
}

// Pipe runs Serve in this process and returns a session with it, for tests of
// handlers with a device made of software.
func Pipe(name string, methods map[string]Method) Conn {
	requestR, requestW := io.Pipe()
	answerR, answerW := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := Serve(name, requestR, answerW, methods)
		_ = answerW.CloseWithError(err)
	}()
	c := &pipeConn{in: requestW, out: answerR, done: done}
	_, _, _ = receive(answerR) // the greeting
	return c
}

type pipeConn struct {
	in   *io.PipeWriter
	out  *io.PipeReader
	done chan struct{}
	mu   sync.Mutex
}

func (c *pipeConn) Call(ctx context.Context, call Call, result any) ([]secret.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	secrets, err := exchange(c.in, c.out, call, result)
	if !stop() {
		secret.WipeAll(secrets)
		return nil, context.Cause(ctx)
	}
	return secrets, err
}

func (c *pipeConn) Close() error {
	_ = c.in.Close()
	_ = c.out.Close()
	<-c.done
	return nil
}
