package fidotest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Events of /dev/uhid, linux/uhid.h.
const (
	uhidDestroy = 1
	uhidOutput  = 6
	uhidCreate2 = 11
	uhidInput2  = 12

	uhidDataMax   = 4096
	uhidEventSize = 4 + 128 + 64 + 64 + 2*2 + 4*4 + uhidDataMax // type and the largest member, create2
	busUSB        = 3
)

// descriptor of a FIDO device: usage page F1D0, 64-byte reports both ways
// (CTAP 2.1 §11.2.8.1).
var fidoDescriptor = []byte{
	0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01,
	0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x81, 0x02,
	0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02,
	0xc0,
}

// UHID plugs the key into the kernel as a hidraw device. It returns when ctx ends
// or the key is unplugged, with the device removed.
func (k *Key) UHID(ctx context.Context) error {
	f, err := os.OpenFile("/dev/uhid", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close() // destroys the device
	if _, err := f.Write(k.createEvent()); err != nil {
		return fmt.Errorf("creating a uhid device: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &port{key: k, send: func(report []byte) error {
		event := binary.NativeEndian.AppendUint32(nil, uhidInput2)
		event = binary.NativeEndian.AppendUint16(event, uint16(len(report)))
		_, err := f.Write(append(event, report...))
		return err
	}}
	failed := make(chan error, 1)
	go func() { failed <- p.readUHID(ctx, f) }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.gone():
		destroy := binary.NativeEndian.AppendUint32(nil, uhidDestroy)
		_, err := f.Write(destroy)
		return err
	case err := <-failed:
		return err
	}
}

func (k *Key) createEvent() []byte {
	k.mu.Lock()
	name, descriptor := k.config.Product, k.config.Descriptor
	k.mu.Unlock()
	if descriptor == nil {
		descriptor = fidoDescriptor
	}
	if name == "" {
		name = "luksmith test key"
	}
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.NativeEndian, v) }
	put(uint32(uhidCreate2))
	var text [128 + 64 + 64]byte // name, phys, uniq
	copy(text[:127], name)
	put(text)
	put([]uint16{uint16(len(descriptor)), busUSB})
	put([]uint32{0x1209, 0xf1d0, 0, 0}) // vendor and product of pid.codes, version, country
	b.Write(descriptor)
	return append(b.Bytes(), make([]byte, uhidEventSize-b.Len())...)
}

func (p *port) readUHID(ctx context.Context, f *os.File) error {
	event := make([]byte, uhidEventSize)
	for {
		n, err := f.Read(event)
		if err != nil {
			return err
		}
		if n < 4+uhidDataMax+2 {
			return errors.New("short event from uhid")
		}
		if binary.NativeEndian.Uint32(event) != uhidOutput {
			continue
		}
		size := int(binary.NativeEndian.Uint16(event[4+uhidDataMax:]))
		if size == 1+reportSize { // begins with the report number, 0
			p.receive(ctx, event[4+1:4+size])
		}
	}
}
