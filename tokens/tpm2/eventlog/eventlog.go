// Package eventlog reads the logs of what was measured into PCRs: the firmware's,
// which the kernel shows in binary_bios_measurements, and the one that systemd
// keeps of user space. It names events for people, replays them and finds what
// differs between two boots.
//
// The logs are not protected. They serve to explain a PCR value, never to trust
// one, and everything in them is treated as hostile input.
//
// go-eventlog does more, but brings protocol buffers into every command: 2.8 MB
// where a static helper may have 6. The logs and PCR values that it is tested with
// are tested with here.
package eventlog

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // banks, see Replay
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

// Event is one measurement.
type Event struct {
	PCR  int
	Type uint32 // EV_…; 0 for events of user space
	// Digests are what the PCRs were extended with, by bank: "sha256".
	Digests map[string][]byte
	Data    []byte // what the firmware says it measured; unverified
	// Text describes an event of user space.
	Text string
}

// Types of events (TCG PC Client Platform Firmware Profile 1.06 §10.4.1).
const (
	evNoAction = 0x3

	signature     = "Spec ID Event03\x00"
	startupMarker = "StartupLocality\x00"
)

// Limits that no real log reaches.
const (
	MaxSize   = 16 << 20
	maxEvents = 10000
)

// banks are the hash algorithms of TCG Algorithm Registry §6.
var banks = [...]struct {
	alg  uint16
	name string
	hash crypto.Hash
}{{0x4, "sha1", crypto.SHA1}, {0xb, "sha256", crypto.SHA256}, {0xc, "sha384", crypto.SHA384}, {0xd, "sha512", crypto.SHA512}}

// bankName is "" for an algorithm that is not computed here.
func bankName(alg uint16) string {
	for _, b := range banks {
		if b.alg == alg {
			return b.name
		}
	}
	return ""
}

// hashOf is 0 for a bank that is not computed here.
func hashOf(bank string) crypto.Hash {
	for _, b := range banks {
		if b.name == bank {
			return b.hash
		}
	}
	return 0
}

// ErrTruncated: the log ends within an event.
var ErrTruncated = errors.New("event log is cut short")

// reader takes little-endian numbers and slices off a log.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n uint32) []byte {
	if r.err != nil || uint64(n) > uint64(len(r.b)) {
		r.err = ErrTruncated
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Parse reads a firmware log, either with digests of several banks or, from old
// firmware, with SHA-1 only. The first event tells which (§10.2.1, §10.4.5.1).
// The slices of the events share memory with b.
func Parse(b []byte) ([]Event, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("event log has %d bytes, at most %d are read", len(b), MaxSize)
	}
	r := &reader{b: b}
	first := r.oldEvent()
	if r.err != nil {
		return nil, r.err
	}
	if first.Type != evNoAction || !bytes.HasPrefix(first.Data, []byte(signature)) {
		return parseAll(&reader{b: b}, (*reader).oldEvent)
	}
	sizes, err := specSizes(first.Data)
	if err != nil {
		return nil, err
	}
	return parseAll(r, func(r *reader) Event { return r.event(sizes) })
}

func parseAll(r *reader, next func(*reader) Event) ([]Event, error) {
	var list []Event
	for len(r.b) > 0 && !isPadding(r.b) {
		e := next(r)
		if r.err != nil {
			return list, r.err
		}
		if len(list) == maxEvents {
			return list, fmt.Errorf("event log has more than %d events", maxEvents)
		}
		list = append(list, e)
	}
	return list, nil
}

// isPadding reports whether nothing but filler follows. No event begins with PCR
// 0 and type 0, or with all bits set.
func isPadding(b []byte) bool {
	head := b[:min(len(b), 8)]
	for _, filler := range []string{"\x00", "\xff"} {
		if len(bytes.Trim(head, filler)) == 0 && len(bytes.Trim(b, filler)) == 0 {
			return true
		}
	}
	return false
}

// oldEvent is TCG_PCR_EVENT, which has a SHA-1 digest.
func (r *reader) oldEvent() Event {
	e := Event{PCR: int(r.u32()), Type: r.u32(), Digests: map[string][]byte{"sha1": r.take(20)}}
	e.Data = r.take(r.u32())
	return e
}

// event is TCG_PCR_EVENT2, which has a digest of every bank.
func (r *reader) event(sizes map[uint16]uint16) Event {
	e := Event{PCR: int(r.u32()), Type: r.u32(), Digests: map[string][]byte{}}
	count := r.u32()
	if r.err == nil && count > uint32(len(sizes)) {
		r.err = fmt.Errorf("event log has an event with %d digests where it announced %d banks", count, len(sizes))
	}
	for range count {
		alg := r.u16()
		size, ok := sizes[alg]
		if r.err == nil && !ok {
			r.err = fmt.Errorf("event log has a digest of the unannounced algorithm %#x", alg)
		}
		if digest := r.take(uint32(size)); r.err == nil && bankName(alg) != "" {
			e.Digests[bankName(alg)] = digest
		}
		if r.err != nil {
			return e
		}
	}
	e.Data = r.take(r.u32())
	return e
}

// specSizes reads the digest sizes that the first event announces
// (TCG_EfiSpecIdEvent).
func specSizes(data []byte) (map[uint16]uint16, error) {
	r := &reader{b: data[len(signature):]}
	r.take(8) // platform class, versions, size of UINTN
	count := r.u32()
	if count == 0 || count > 16 {
		return nil, fmt.Errorf("event log announces %d banks", count)
	}
	sizes := map[uint16]uint16{}
	for range count {
		alg := r.u16()
		sizes[alg] = r.u16()
		if name := bankName(alg); r.err == nil && name != "" && int(sizes[alg]) != hashOf(name).Size() {
			return nil, fmt.Errorf("event log announces %s digests of %d bytes", name, sizes[alg])
		}
	}
	return sizes, r.err
}

// Of returns the events of one PCR that extended it.
func Of(events []Event, pcr int) []Event {
	var list []Event
	for _, e := range events {
		if e.PCR == pcr && e.Type != evNoAction {
			list = append(list, e)
		}
	}
	return list
}

// Start is the value of a PCR before the first event of a log. PCR 0 says from
// which locality the machine was started (§10.4.5.3).
func Start(events []Event, bank string, pcr int) []byte {
	value := make([]byte, hashOf(bank).Size())
	if pcr >= 17 && pcr <= 22 {
		return bytes.Repeat([]byte{0xff}, len(value))
	}
	for _, e := range events {
		if pcr == 0 && e.PCR == 0 && e.Type == evNoAction && len(e.Data) == len(startupMarker)+1 && bytes.HasPrefix(e.Data, []byte(startupMarker)) {
			value[len(value)-1] = e.Data[len(e.Data)-1]
		}
	}
	return value
}

// Extend is the value of a PCR after one event, or nil when the event has no
// digest for the bank.
func Extend(bank string, value []byte, e Event) []byte {
	digest := e.Digests[bank]
	if len(digest) != hashOf(bank).Size() {
		return nil
	}
	h := hashOf(bank).New()
	h.Write(value)
	h.Write(digest)
	return h.Sum(nil)
}

// Replay is the value that the events give a PCR, or nil when one of them has no
// digest for the bank.
func Replay(events []Event, bank string, pcr int) []byte {
	value := Start(events, bank, pcr)
	for _, e := range Of(events, pcr) {
		if value = Extend(bank, value, e); value == nil {
			return nil
		}
	}
	return value
}
