package fidotest

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// CTAPHID, CTAP 2.1 §11.2.
const (
	reportSize   = 64
	broadcast    = 0xffffffff
	initHeader   = 7
	contHeader   = 5
	largest      = reportSize - initHeader + 128*(reportSize-contHeader)
	hidPing      = 0x01
	hidInit      = 0x06
	hidWink      = 0x08
	hidCBOR      = 0x10
	hidCancel    = 0x11
	hidError     = 0x3f
	hidKeepalive = 0x3b
	initPacket   = 0x80

	errInvalidCommand = 0x01
	errInvalidLength  = 0x03
	errInvalidSeq     = 0x04
	errChannelBusy    = 0x06
	errInvalidChannel = 0x0b

	// Capabilities: wink, CBOR, no U2F messages.
	capabilities = 0x01 | 0x04 | 0x08

	keepaliveEvery = 100 * time.Millisecond
	upNeeded       = 2
)

// port turns reports into commands for a key and answers into reports.
type port struct {
	key  *Key
	send func(report []byte) error // one report, without number

	mu       sync.Mutex // also keeps the reports of one message together
	channels uint32
	incoming message // being put together
	busy     uint32  // channel of the running command, 0 for none
	cancel   context.CancelFunc
}

// message is one that comes in several reports.
type message struct {
	channel uint32
	command byte
	want    int
	next    byte
	data    []byte
}

// receive takes one report from the host.
func (p *port) receive(ctx context.Context, report []byte) {
	if len(report) != reportSize || p.key.fault() == Silent {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	channel := binary.BigEndian.Uint32(report)
	if report[4]&initPacket != 0 {
		p.begin(channel, report)
	} else {
		p.extend(channel, report)
	}
	m := p.incoming
	if m.channel != channel || m.channel == 0 || len(m.data) < m.want {
		return
	}
	p.incoming = message{}
	m.data = m.data[:m.want]
	p.run(ctx, m)
}

func (p *port) begin(channel uint32, report []byte) {
	m := message{channel: channel, command: report[4] &^ initPacket, want: int(binary.BigEndian.Uint16(report[5:])), data: bytes.Clone(report[initHeader:])}
	switch {
	case channel == 0 || channel == broadcast && m.command != hidInit:
		p.fail(channel, errInvalidChannel)
	case m.want > largest:
		p.fail(channel, errInvalidLength)
	case p.incoming.channel != 0 && p.incoming.channel != channel && m.command != hidInit:
		p.fail(channel, errChannelBusy)
	default:
		p.incoming = m
	}
}

func (p *port) extend(channel uint32, report []byte) {
	m := &p.incoming
	if m.channel != channel {
		return // spurious, to be ignored
	}
	if report[4] != m.next {
		p.fail(channel, errInvalidSeq)
		p.incoming = message{}
		return
	}
	m.next++
	m.data = append(m.data, report[contHeader:]...)
}

// run answers a complete message; a command runs beside the port.
func (p *port) run(ctx context.Context, m message) {
	switch m.command {
	case hidInit:
		p.open(m)
	case hidPing:
		p.answer(m.channel, hidPing, m.data)
	case hidWink:
		p.answer(m.channel, hidWink, nil)
	case hidCancel:
		if p.busy == m.channel {
			p.cancel()
		}
	case hidCBOR:
		if len(m.data) == 0 {
			p.fail(m.channel, errInvalidLength)
			return
		}
		if p.busy != 0 {
			p.fail(m.channel, errChannelBusy)
			return
		}
		p.busy = m.channel
		ctx, p.cancel = context.WithCancel(ctx)
		go p.command(ctx, p.cancel, m)
	default:
		p.fail(m.channel, errInvalidCommand)
	}
}

// open allots a channel.
func (p *port) open(m message) {
	if m.want != 8 {
		p.fail(m.channel, errInvalidLength)
		return
	}
	channel := m.channel
	if channel == broadcast {
		p.channels++
		channel = 0x1000 + p.channels
	}
	reply := binary.BigEndian.AppendUint32(bytes.Clone(m.data[:8]), channel)
	p.answer(m.channel, hidInit, append(reply, 2, 1, 0, 0, capabilities)) // CTAPHID version 2, device 1.0.0
}

func (p *port) command(ctx context.Context, cancel context.CancelFunc, m message) {
	defer cancel()
	answer := make(chan []byte, 1)
	go func() { answer <- p.key.Command(ctx, m.data) }()
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		select {
		case b := <-answer:
			p.mu.Lock()
			p.busy = 0
			if b != nil {
				p.announce(m.channel, hidCBOR, b, p.announced(m, b))
			}
			p.mu.Unlock()
			return
		case <-tick.C:
			if p.key.fault() != SilentCommands {
				p.mu.Lock()
				p.answer(m.channel, hidKeepalive, []byte{upNeeded})
				p.mu.Unlock()
			}
		}
	}
}

// announced is the length that the answer to a command claims. Faults leave getInfo
// alone, so that the key can be opened.
func (p *port) announced(m message, answer []byte) int {
	fault := p.key.fault()
	switch {
	case m.data[0] == commandGetInfo:
	case fault == Oversized:
		return 0xffff
	case fault == Truncated:
		return len(answer) + 200
	}
	return len(answer)
}

func (p *port) fail(channel uint32, code byte) { p.answer(channel, hidError, []byte{code}) }

// answer sends a message in as many reports as it takes. p.mu is held.
func (p *port) answer(channel uint32, command byte, data []byte) {
	p.announce(channel, command, data, len(data))
}

// announce is answer with a length of its own, for keys that lie about it.
func (p *port) announce(channel uint32, command byte, data []byte, announced int) {
	head := binary.BigEndian.AppendUint32(nil, channel)
	first := append(bytes.Clone(head), command|initPacket, byte(announced>>8), byte(announced))
	n := min(len(data), reportSize-initHeader)
	p.report(append(first, data[:n]...))
	for seq := byte(0); n < len(data); seq++ {
		size := min(len(data)-n, reportSize-contHeader)
		p.report(append(append(bytes.Clone(head), seq), data[n:n+size]...))
		n += size
	}
}

// report pads and sends. A failure means that the key was unplugged meanwhile.
func (p *port) report(b []byte) {
	_ = p.send(append(b, make([]byte, reportSize-len(b))...))
}
