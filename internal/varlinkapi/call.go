package varlinkapi

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/varlink/go/varlink"
	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/tokens"
)

// call is one call.
type call struct {
	varlink.Call
	conn   *conn
	params *params
	files  []*os.File
}

// end forgets what came with it.
func (c *call) end() {
	c.params.wipe()
	for _, f := range c.files {
		_ = f.Close()
	}
}

// noMethod is the name of a method that the interface does not have.
type noMethod string

func (e noMethod) Error() string { return "no method " + string(e) }

// errNeedsMore is for a method that has several replies.
var errNeedsMore = errors.New("the method has several replies")

// touch tells the caller, if it takes several replies.
func (c *call) touch() {
	if !c.WantsMore() {
		return
	}
	c.Continues = true
	_ = c.Reply(context.Background(), state{"touch"})
	c.Continues = false
}

type state struct {
	State string `json:"state"`
}

// request is what the members that both interfaces have ask for.
func (c *call) request() *Request {
	p := c.params
	r := &Request{Node: p.text("node"), Touch: c.touch, Alive: c.conn.alive}
	if p.must("node"); r.Node == "" {
		p.fail("node")
	}
	if p.has("unlockPassword") {
		r.UnlockByPassphrase, r.Secrets.Passphrase = true, p.secret("unlockPassword")
	}
	if p.has("unlockKeyFileDescriptorIndex") {
		r.Words = append(r.Words, "--unlock-key-file="+c.file("unlockKeyFileDescriptorIndex"))
	}
	r.Secrets.NewPassphrase = p.secret("password")
	return r
}

// file is the path of a descriptor that came with the call. It is opened anew, so that
// a file is read from its start.
func (c *call) file(name string) string {
	index := -1
	c.params.read(name, &index)
	if index < 0 || index >= len(c.files) {
		c.params.fail(name)
		return ""
	}
	return fmt.Sprintf("/proc/self/fd/%d", c.files[index].Fd())
}

// fail sends an error as the interface has it.
func (c *call) fail(ctx context.Context, name string, err error) error {
	if member, ok := errors.AsType[invalid](err); ok {
		return c.ReplyInvalidParameter(ctx, string(member))
	}
	if method, ok := errors.AsType[noMethod](err); ok {
		return c.ReplyMethodNotFound(ctx, string(method))
	}
	switch {
	case errors.Is(err, errNeedsMore):
		return c.conn.serviceError(ctx, "ExpectedMore")
	case name == ownName:
		v := cli.ViewError(cli.ExitStatus(err), err)
		return c.ReplyError(ctx, ownName+".Failed", failed{v.Code, v.Message, v.Hint})
	}
	if known := systemdError(err); known != "" {
		return c.ReplyError(ctx, systemdName+"."+known, struct{}{})
	}
	return c.ReplyError(ctx, "io.systemd.System", systemError(err))
}

type failed struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// ErrForeign is wrapped by what is refused because systemd-homed manages the volume.
var ErrForeign = errors.New("managed by systemd-homed")

// systemdError is the name of an error that io.systemd.CryptEnroll has; "" for others.
func systemdError(err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{
		{ErrForeign, "VolumeUnderForeignManagement"},
		{tokens.ErrWrongPIN, "PasswordIncorrect"}, // also when nobody is there for another one
		{tokens.ErrNoPrompt, "PasswordRequired"},
		{tokens.ErrTimeout, "FidoActionTimeout"},
		{tokens.ErrNoDevice, "FidoDeviceNotFound"},
		{tokens.ErrSeveralDevices, "FidoDeviceNotFound"},
		{luks2.ErrNoKey, "PasswordIncorrect"},
	} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return ""
}

// system are the parameters of io.systemd.System, with our message besides.
type system struct {
	Origin  string `json:"origin"`
	Errno   int    `json:"errno"`
	Name    string `json:"errnoName"`
	Message string `json:"message"`
}

func systemError(err error) system {
	errno, ok := errors.AsType[unix.Errno](err)
	switch {
	case ok:
	case errors.Is(err, cli.ErrRefused):
		errno = unix.EPERM
	case errors.Is(err, tokens.ErrUsage), errors.Is(err, cli.ErrWrongDevice):
		errno = unix.EINVAL
	default:
		errno = unix.EIO
	}
	return system{"linux", int(errno), unix.ErrnoName(errno), cli.ViewError(cli.ExitStatus(err), err).Message}
}
