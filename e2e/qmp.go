package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// monitor speaks QMP, QEMU's machine protocol (docs/interop/qmp-spec in QEMU).
type monitor struct {
	mu      sync.Mutex // one command at a time
	enc     *json.Encoder
	replies chan qmpMessage
	events  chan qmpMessage // DEVICE_DELETED only
}

type qmpMessage struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	Event  string
	Data   struct{ Device string }
}

func newMonitor(conn net.Conn) (*monitor, error) {
	m := &monitor{enc: json.NewEncoder(conn), replies: make(chan qmpMessage), events: make(chan qmpMessage, 64)}
	go m.read(json.NewDecoder(conn))
	return m, m.command("qmp_capabilities", nil)
}

func (m *monitor) read(in *json.Decoder) {
	defer close(m.replies)
	for {
		var msg qmpMessage
		if in.Decode(&msg) != nil {
			return
		}
		switch {
		case msg.Event == "DEVICE_DELETED":
			m.events <- msg
		case msg.Return != nil || msg.Error != nil:
			m.replies <- msg
		}
	}
}

// command runs one command and waits for its answer.
func (m *monitor) command(name string, args map[string]any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := map[string]any{"execute": name}
	if args != nil {
		c["arguments"] = args
	}
	if err := m.enc.Encode(c); err != nil {
		return fmt.Errorf("QEMU monitor: %w", err)
	}
	r, ok := <-m.replies
	if !ok {
		return errors.New("QEMU ended")
	}
	if r.Error != nil {
		return fmt.Errorf("QEMU: %s: %s", name, r.Error.Desc)
	}
	return nil
}
