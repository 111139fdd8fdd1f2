package tpm2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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

// conn is one operation's connection to a TPM. It knows what was loaded through
// it and flushes that at the end: a TPM without a resource manager has three slots
// for objects and three for sessions, and what stays there stays until a reset. It
// is not safe for concurrent use.
type conn struct {
	// ctx ends every command. It is in the struct because go-tpm's transport has
	// no place for it; a conn serves one call of the handler.
	ctx    context.Context
	link   link
	loaded []tpm2.TPMHandle // objects and sessions, oldest first
	broken error            // the link is of no use any more
}

var _ transport.TPM = (*conn)(nil)

// connect opens the TPM that a --tpm2-device= value names.
func (h *Handler) connect(ctx context.Context, device string) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := h.openLink(ctx, device)
	if err != nil {
		return nil, err
	}
	return &conn{ctx: ctx, link: l}, nil
}

// Close flushes what is still loaded and closes the device. Nothing useful can be
// done about a failure.
func (c *conn) Close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), flushTimeout)
	defer cancel()
	c.ctx = ctx
	for len(c.loaded) > 0 && c.broken == nil {
		c.flush(c.loaded[len(c.loaded)-1])
	}
	_ = c.link.Close()
}

// flush forgets an object or session; once the context has ended that is left to
// Close. An error is ignored: the handle is then not there any more, or the
// connection is broken.
func (c *conn) flush(handle tpm2.TPMHandle) {
	if c.ctx.Err() != nil {
		return
	}
	c.forget(handle)
	_, _ = run(c, "TPM2_FlushContext", tpm2.FlushContext{FlushHandle: handle})
}

// forget is for what the TPM flushed by itself.
func (c *conn) forget(handle tpm2.TPMHandle) {
	c.loaded = slices.DeleteFunc(c.loaded, func(h tpm2.TPMHandle) bool { return h == handle })
}

// Send carries out one command. It is what go-tpm calls.
func (c *conn) Send(command []byte) ([]byte, error) {
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
func (c *conn) remember(command, response []byte) {
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
func (c *conn) exchange(command []byte) ([]byte, error) {
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
	response, err := c.link.exchange(ctx, command)
	if err == nil {
		err = checkFrame(command, response)
	}
	switch {
	case err == nil:
		return response, nil
	case c.ctx.Err() != nil:
		c.broken = c.ctx.Err()
	default:
		c.broken = tokens.WithHint(fmt.Errorf("talking to the TPM: %w: %w", tokens.ErrNoDevice, err),
			"try again; if that does not help, switch the machine off and on")
	}
	return nil, c.broken
}

func checkFrame(command, response []byte) error {
	tag := binary.BigEndian.Uint16(response)
	switch rc := responseCode(response); {
	case rc == tpm2.TPMRCSuccess && tag != binary.BigEndian.Uint16(command):
		return fmt.Errorf("response with tag %#x", tag)
	case rc != tpm2.TPMRCSuccess && (tag != uint16(tpm2.TPMSTNoSessions) || len(response) != headerSize):
		return fmt.Errorf("error response with tag %#x and %d bytes", tag, len(response))
	}
	return nil
}

func responseCode(response []byte) tpm2.TPMRC {
	return tpm2.TPMRC(binary.BigEndian.Uint32(response[6:]))
}

func isBusy(rc tpm2.TPMRC) bool {
	return rc == tpm2.TPMRCRetry || rc == tpm2.TPMRCYielded || rc == tpm2.TPMRCTesting || rc == tpm2.TPMRCNVRate
}

func (c *conn) startup() error {
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

// command is any of go-tpm's, with response R.
type command[R any] interface {
	Execute(t transport.TPM, s ...tpm2.Session) (*R, error)
}

// run executes a command. Response codes other than success come back as
// *CommandError; responses that cannot be read are errors, whatever go-tpm's
// reflection makes of them.
func run[R any](c *conn, name string, cmd command[R], sessions ...tpm2.Session) (rsp *R, err error) {
	defer func() {
		if p := recover(); p != nil {
			rsp, err = nil, fmt.Errorf("%s: the response is malformed", name)
		}
	}()
	rsp, err = cmd.Execute(c, sessions...)
	if err == nil {
		return rsp, nil
	}
	if rc, ok := errors.AsType[tpm2.TPMRC](err); ok {
		return nil, &CommandError{Command: name, Code: rc}
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// load loads a sealed object and checks that the TPM names it as we do. The
// caller flushes it.
func (c *conn) load(p *parent, private, public []byte) (tpm2.NamedHandle, error) {
	rsp, err := run(c, "TPM2_Load", tpm2.Load{
		ParentHandle: p.auth(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](public),
	})
	if err != nil {
		return tpm2.NamedHandle{}, err
	}
	name := objectName(public)
	if !bytes.Equal(rsp.Name.Buffer, name) {
		return tpm2.NamedHandle{}, errors.New("the TPM loaded another object than it was given")
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: tpm2.TPM2BName{Buffer: name}}, nil
}

// importObject takes an object that was sealed without the TPM and returns its
// private part in the form that load takes.
func (c *conn) importObject(p *parent, b sealedBlob) ([]byte, error) {
	rsp, err := run(c, "TPM2_Import", tpm2.Import{
		ParentHandle: p.auth(),
		ObjectPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](b.public),
		Duplicate:    tpm2.TPM2BPrivate{Buffer: b.private},
		InSymSeed:    tpm2.TPM2BEncryptedSecret{Buffer: b.seed},
	})
	if err != nil {
		return nil, err
	}
	return rsp.OutPrivate.Buffer, nil
}

// primary makes a transient storage key of the owner hierarchy. The caller
// flushes its handle.
func (c *conn) primary(template tpm2.TPMTPublic) (*parent, error) {
	rsp, err := run(c, "TPM2_CreatePrimary", tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	})
	if err != nil {
		return nil, err
	}
	return newParent(rsp.ObjectHandle, rsp.OutPublic.Bytes())
}

// readPublic returns the key at a handle.
func (c *conn) readPublic(handle tpm2.TPMHandle) ([]byte, error) {
	rsp, err := run(c, "TPM2_ReadPublic", tpm2.ReadPublic{ObjectHandle: handle})
	if err != nil {
		return nil, err
	}
	return rsp.OutPublic.Bytes(), nil
}

// readPCRs reads present values. A TPM answers with up to eight at a time.
func (c *conn) readPCRs(b bank, set pcrSet) (pcrValues, error) {
	values := pcrValues{}
	for rest := set; rest != 0; {
		rsp, err := run(c, "TPM2_PCR_Read", tpm2.PCRRead{PCRSelectionIn: rest.selection(b)})
		if err != nil {
			return nil, err
		}
		got := selected(rsp.PCRSelectionOut, b) & rest
		if got == 0 || got.len() != len(rsp.PCRValues.Digests) {
			return nil, fmt.Errorf("the TPM has no PCR %s in bank %s", rest, b)
		}
		for i, pcr := range got.list() {
			values[pcr] = rsp.PCRValues.Digests[i].Buffer
			if len(values[pcr]) != b.size() {
				return nil, fmt.Errorf("TPM2_PCR_Read: a value of %d bytes for PCR %d of bank %s", len(values[pcr]), pcr, b)
			}
		}
		rest &^= got
	}
	return values, nil
}

// selected is the part of a selection that belongs to one bank.
func selected(list tpm2.TPMLPCRSelection, b bank) pcrSet {
	var set pcrSet
	for _, s := range list.PCRSelections {
		if bank(s.Hash) != b {
			continue
		}
		for i, bits := range s.PCRSelect {
			if i < maxPCRs/8 {
				set |= pcrSet(bits) << (8 * i)
			}
		}
	}
	return set
}
