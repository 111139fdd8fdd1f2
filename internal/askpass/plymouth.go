package askpass

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/internal/socket"
	"luksmith/luks2/secret"
)

// PlymouthSocket is the abstract address of plymouthd.
const PlymouthSocket = "@/org/freedesktop/plymouthd"

// The bytes of plymouth's src/ply-boot-protocol.h. A request is its byte and NUL,
// or its byte, 0x02, the length of the argument with its NUL, the argument, NUL.
const (
	plymouthPassword       = '*'
	plymouthCachedPassword = 'c'
	plymouthShowMessage    = 'M'
	plymouthHideMessage    = 'm'
	plymouthPing           = 'P'

	plymouthYes      = 0x06
	plymouthAnswer   = 0x02 // and 32 bits little-endian length, text
	plymouthNoAnswer = 0x05 // no splash is shown, or nothing is cached
	plymouthAnswers  = 0x09 // as plymouthAnswer, a list divided by NUL
)

// plymouthMessage is the longest text of a request: its length with NUL is a byte.
const plymouthMessage = 254

const (
	// plymouthPatience bounds how long plymouthd may take for anything but the
	// person.
	plymouthPatience = 2 * time.Second
	// plymouthWatch is how often it has to show that it still runs while it asks.
	plymouthWatch = 5 * time.Second
)

// errNoSplash says that plymouth does not run or shows nothing: the console has
// to ask.
var errNoSplash = errors.New("plymouth shows no splash")

// byPlymouth asks for the password plymouth has cached, if that is wanted, and
// then the person. A question cannot be withdrawn in this protocol: plymouth goes
// on showing it until the next Enter, whose text is lost. free is opened when the
// consoles are to ask, too: because this way failed, or plymouthd hangs.
func (p *Pending) byPlymouth(ctx context.Context, v view, free *gate) (Answer, error) {
	defer free.open()
	conn, err := dialPlymouth(ctx, p.asker.o.Plymouth)
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %w", errNoSplash, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = pingPlymouth(conn)
	switch {
	case ctx.Err() != nil: // also if the deadline was set while the ping still had its own
		return Answer{}, cause(ctx)
	case err != nil:
		return Answer{}, fmt.Errorf("%w: %w", errNoSplash, err)
	}
	select {
	case <-p.revealed.ch:
	case <-ctx.Done():
		return Answer{}, cause(ctx)
	}
	watching, done := context.WithCancel(ctx)
	defer done()
	go watchPlymouth(watching, p.asker.o.Plymouth, free)
	list, err := p.talkToPlymouth(conn, v)
	if ctx.Err() != nil {
		secret.WipeAll(list)
		return Answer{}, cause(ctx)
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{Secrets: list, Source: FromPlymouth}, nil
}

// pingPlymouth finds out whether the daemon answers.
func pingPlymouth(conn *os.File) error {
	if err := conn.SetDeadline(time.Now().Add(plymouthPatience)); err != nil {
		return err
	}
	if _, err := conn.Write(plymouthPacket(plymouthPing, "")); err != nil {
		return err
	}
	var reply [1]byte
	if _, err := io.ReadFull(conn, reply[:]); err != nil {
		return fmt.Errorf("plymouthd does not answer: %w", err)
	}
	if reply[0] != plymouthYes {
		return fmt.Errorf("plymouthd answers a ping with byte %#02x", reply[0])
	}
	return conn.SetDeadline(time.Time{})
}

// watchPlymouth opens free once the daemon does not answer any more. Its question
// stays: it may come round.
func watchPlymouth(ctx context.Context, address string, free *gate) {
	tick := time.NewTicker(plymouthWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		conn, err := dialPlymouth(ctx, address)
		if err == nil {
			err = pingPlymouth(conn)
			_ = conn.Close()
		}
		if err != nil {
			free.open()
			return
		}
	}
}

func (p *Pending) talkToPlymouth(conn *os.File, v view) ([]secret.Secret, error) {
	if p.q.cacheable(p.asker.o.Cache) && p.q.automatic() {
		list, err := plymouthRequest(conn, plymouthCachedPassword, "")
		if !errors.Is(err, errNoSplash) {
			return list, err
		}
	}
	if !v.repeat {
		for _, text := range p.q.notices() {
			defer p.asker.splash.show(text)()
		}
	}
	return plymouthRequest(conn, plymouthPassword, p.label(p.q.Text)+v.suffix) // splashes add a colon where they want one
}

// dialPlymouth connects. An abstract address has no owner and no mode: anybody
// may take it while plymouthd does not run. So the other end must be root or our
// own user.
func dialPlymouth(ctx context.Context, address string) (*os.File, error) {
	soon, cancel := context.WithTimeout(ctx, plymouthPatience)
	defer cancel()
	conn, err := socket.Dial(soon, socket.Unix(address), nil)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	var peer *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("finding out who listens at %s: %w", address, err)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		_ = conn.Close()
		return nil, fmt.Errorf("%s belongs to user %d", address, peer.Uid)
	}
	return conn, nil
}

// plymouthRequest sends one request and reads its reply.
func plymouthRequest(conn *os.File, request byte, text string) ([]secret.Secret, error) {
	if _, err := conn.Write(plymouthPacket(request, text)); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoSplash, err)
	}
	return readPlymouth(conn)
}

func plymouthPacket(request byte, text string) []byte {
	if text == "" {
		return []byte{request, 0}
	}
	text = cli.Escape(text)
	if len(text) > plymouthMessage {
		end := plymouthMessage
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	packet := append([]byte{request, 0x02, byte(len(text) + 1)}, text...)
	return append(packet, 0)
}

// readPlymouth reads one reply, the passwords straight into locked memory. An
// acknowledgement gives an empty list.
func readPlymouth(r io.Reader) ([]secret.Secret, error) {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return nil, fmt.Errorf("%w: reading plymouth's reply: %w", errNoSplash, err)
	}
	switch kind[0] {
	case plymouthNoAnswer:
		return nil, errNoSplash
	case plymouthAnswer, plymouthAnswers:
	default:
		return nil, fmt.Errorf("%w: its reply begins with byte %#02x", errNoSplash, kind[0])
	}
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, fmt.Errorf("%w: reading plymouth's reply: %w", errNoSplash, err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > maxReply {
		return nil, fmt.Errorf("%w: its reply has %d bytes", errNoSplash, n)
	}
	data := secret.New(int(n))
	if _, err := io.ReadFull(r, data.Bytes()); err != nil {
		data.Wipe()
		return nil, fmt.Errorf("%w: reading plymouth's reply: %w", errNoSplash, err)
	}
	if kind[0] == plymouthAnswer {
		return []secret.Secret{data}, nil
	}
	defer data.Wipe()
	list := splitList(data.Bytes())
	if len(list) == 0 {
		return nil, errNoSplash
	}
	return list, nil
}

// splash shows messages on plymouth, without ever holding up the caller.
type splash struct {
	address string
	mu      sync.Mutex // one request after the other
}

// show displays a message until the returned function is called.
func (s *splash) show(text string) (hide func()) {
	if s.address == "" {
		return func() {}
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		s.send(plymouthShowMessage, text)
	}()
	return func() {
		go func() {
			<-shown
			s.send(plymouthHideMessage, text)
		}()
	}
}

// send is best effort: a message that plymouth does not take is also on the
// console or in the journal.
func (s *splash) send(request byte, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), plymouthPatience)
	defer cancel()
	conn, err := dialPlymouth(ctx, s.address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(plymouthPatience))
	if _, err := conn.Write(plymouthPacket(request, text)); err == nil {
		var reply [1]byte
		_, _ = io.ReadFull(conn, reply[:])
	}
}
