package pkcs11

import (
	"sync"

	"luksmith/tokens/pkcs11/wire"
)

// memory is what a handler remembers from one Unlock to the next, so that a token
// which was plugged in all the time is not asked for its PIN again only because
// another one came.
type memory struct {
	waiting sync.Mutex       // held by WaitDevice: a combination waits for its factors too
	state   string           // of the last list, for WaitDevice; "" if it may be wrong
	found   map[string]*past // by identity
	// What does not hang on the words of a token: PINs sent, whether the configured
	// one was refused, and how often what is plugged in seemed to change.
	sent              int
	configuredRefused bool
	unread            bool // the token was pulled out before it looked at the last PIN
	changes           int
}

// maxPINs bounds the PINs that one handler sends, whatever the tokens say of
// themselves. A person who tries several cards needs far fewer.
const maxPINs = 20

// past is what became of a token that is still plugged in.
type past struct {
	refusal error           // of its PIN
	lacks   map[string]bool // URIs and kinds of keys that it does not have
}

// saw takes note of what is plugged in, and forgets what is not.
func (m *memory) saw(list *wire.Tokens) {
	m.state = list.State
	now := map[string]*past{}
	for i := range list.Tokens {
		id := identity(&list.Tokens[i])
		if now[id] = m.found[id]; now[id] == nil {
			now[id] = &past{lacks: map[string]bool{}}
		}
	}
	m.found = now
}

// vanished forgets a token that was pulled out while it was used. It may be back
// before anybody looks, and would seem never to have gone.
func (m *memory) vanished(device *wire.Token) {
	m.found[identity(device)] = &past{lacks: map[string]bool{}}
	m.state = ""
}

// refused remembers that a token and the person did not agree on a PIN.
func (m *memory) refused(device *wire.Token, err error) { m.found[identity(device)].refusal = err }

// refusal is the error of refused, or nil.
func (m *memory) refusal(device *wire.Token) error { return m.found[identity(device)].refusal }

// lack remembers that a token does not have the key of a job.
func (m *memory) lack(device *wire.Token, j *job) {
	m.found[identity(device)].lacks[j.selects.String()+j.record.kind()] = true
}

func (m *memory) lacks(device *wire.Token, j *job) bool {
	return m.found[identity(device)].lacks[j.selects.String()+j.record.kind()]
}
