package chip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"luksmith/tokens"
)

// Waiting for a busy TPM: TPM_RC_RETRY and its like are answered by sending the
// same bytes again after 1, 2, 4 … ms, for about four seconds.
const (
	firstDelay = time.Millisecond
	lastDelay  = 2 * time.Second
)

// grace is how long a command that was on its way when the context ended may
// still take. Giving up on it at once would leave in the TPM what it loaded.
const grace = time.Second

// flushTimeout is how long the end of an operation may take after its context
// ended.
const flushTimeout = 5 * time.Second

// Conn is one operation's connection to a TPM. It knows what was loaded through
// it and flushes that at the end: a TPM without a resource manager has three slots
// for objects and three for sessions, and what stays there stays until a reset. It
// is not safe for concurrent use.
type Conn struct {
	// ctx ends every command. It is in the struct because go-tpm's transport has
	// no place for it; a Conn serves one call of the handler.
	ctx    context.Context
	link   Link
	loaded []tpm2.TPMHandle // objects and sessions, oldest first
	broken error            // the link is of no use any more
}

var _ transport.TPM = (*Conn)(nil)

// Open opens the TPM that a --tpm2-device= value names; "" and "auto" are the only
// one. The machine's files are looked for below root. Failures are ErrNoDevice,
// ErrSeveralDevices or ErrBusy.
func Open(ctx context.Context, name, root string) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := openLink(ctx, name, root)
	if err != nil {
		return nil, err
	}
	return New(ctx, l), nil
}

// New talks over a link, which Close closes.
func New(ctx context.Context, l Link) *Conn { return &Conn{ctx: ctx, link: l} }

// Context ends every command of the connection.
func (c *Conn) Context() context.Context { return c.ctx }

// Broken reports whether the connection is of no use any more, so that what
// failed says nothing of the TPM.
func (c *Conn) Broken() bool { return c.broken != nil }

// Close flushes what is still loaded and closes the device. Nothing useful can be
// done about a failure.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), flushTimeout)
	defer cancel()
	c.ctx = ctx
	for len(c.loaded) > 0 && c.broken == nil {
		c.Flush(c.loaded[len(c.loaded)-1])
	}
	_ = c.link.Close()
}

// Flush forgets an object or session; once the context has ended that is left to
// Close. An error is ignored: the handle is then not there any more, or the
// connection is broken.
func (c *Conn) Flush(handle tpm2.TPMHandle) {
	if c.ctx.Err() != nil {
		return
	}
	c.forget(handle)
	_, _ = run(c, "TPM2_FlushContext", tpm2.FlushContext{FlushHandle: handle})
}

// forget is for what the TPM flushed by itself.
func (c *Conn) forget(handle tpm2.TPMHandle) {
	c.loaded = slices.DeleteFunc(c.loaded, func(h tpm2.TPMHandle) bool { return h == handle })
}

// Send carries out one command. It is what go-tpm calls.
func (c *Conn) Send(command []byte) ([]byte, error) {
	started := false
	for delay := firstDelay; ; delay *= 2 {
		response, err := c.exchange(command)
		if err != nil {
			return nil, err
		}
		switch rc := responseCode(response); {
		case rc == tpm2.TPMRCInitialize && !started:
			// Nobody started the TPM since it got power. The kernel does that; a
			// bare swtpm leaves it to us.
			started = true
			if err := c.startup(); err != nil {
				return nil, err
			}
		case !isBusy(rc) || delay > lastDelay:
			c.remember(command, response)
			return response, nil
		}
		select {
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		case <-time.After(delay):
		}
	}
}

// remember notes what a command loaded, here rather than where the response is
// read, so that it is flushed even if the rest of the response is rubbish.
func (c *Conn) remember(command, response []byte) {
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
	case tpm2.TPMCCLoad, tpm2.TPMCCLoadExternal, tpm2.TPMCCCreatePrimary, tpm2.TPMCCStartAuthSession:
		if responseCode(response) == tpm2.TPMRCSuccess && len(response) >= headerSize+4 {
			c.loaded = append(c.loaded, tpm2.TPMHandle(binary.BigEndian.Uint32(response[headerSize:])))
		}
	}
}

// exchange sends once and checks the frame of the response (TPM 2.0 Part 1 §18.1).
// A connection that failed once is not used again, so that no late response is
// taken for another command's.
func (c *Conn) exchange(command []byte) ([]byte, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	defer cancel()
	stop := context.AfterFunc(c.ctx, func() { time.AfterFunc(grace, cancel) })
	defer stop()
	response, err := c.link.Exchange(ctx, command)
	if err == nil {
		err = checkFrame(command, response)
	}
	switch {
	case err == nil:
		return response, nil
	case c.ctx.Err() != nil:
		c.broken = c.ctx.Err()
	default:
		c.broken = tokens.WithHint(fmt.Errorf("talking to the TPM: %w", linkError(err)),
			"try again; if that does not help, switch the machine off and on")
	}
	return nil, c.broken
}

// linkError tells a TPM that went away from one that is silent and one that talks
// nonsense: only the first may come back.
func linkError(err error) error {
	switch {
	case errors.Is(err, errNonsense):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no answer within %v", tokens.ErrTimeout, commandTimeout)
	}
	return fmt.Errorf("%w: %w", tokens.ErrNoDevice, err)
}

func checkFrame(command, response []byte) error {
	tag := binary.BigEndian.Uint16(response)
	switch rc := responseCode(response); {
	case rc == tpm2.TPMRCSuccess && tag != binary.BigEndian.Uint16(command):
		return fmt.Errorf("%w: a response with tag %#x", errNonsense, tag)
	case rc != tpm2.TPMRCSuccess && (tag != uint16(tpm2.TPMSTNoSessions) || len(response) != headerSize):
		return fmt.Errorf("%w: an error response with tag %#x and %d bytes", errNonsense, tag, len(response))
	}
	return nil
}

func responseCode(response []byte) tpm2.TPMRC {
	return tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
}

func isBusy(rc tpm2.TPMRC) bool {
	return rc == tpm2.TPMRCRetry || rc == tpm2.TPMRCYielded || rc == tpm2.TPMRCTesting || rc == tpm2.TPMRCNVRate
}

func (c *Conn) startup() error {
	command := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0} // TPM2_Startup(TPM_SU_CLEAR)
	response, err := c.exchange(command)
	if err != nil {
		return err
	}
	if rc := responseCode(response); rc != tpm2.TPMRCSuccess && rc != tpm2.TPMRCInitialize {
		return &CommandError{Command: "TPM2_Startup", Code: rc}
	}
	return nil
}
