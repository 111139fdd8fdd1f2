package helper

import (
	"fmt"

	"luksmith/luks2/secret"
)

// Pieces is a writer that cuts a long content into the secrets of one message: up
// to [MaxSecrets] of [MaxSecret] bytes, which it keeps in locked memory. The zero
// value is empty.
type Pieces struct {
	list []secret.Secret
	used int // bytes of the last one
}

// Write appends b. More than a message may carry is refused with [ErrProtocol].
func (p *Pieces) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if len(p.list) == 0 || p.used == MaxSecret {
			if len(p.list) == MaxSecrets {
				return n, fmt.Errorf("%w: content of more than %d bytes", ErrProtocol, MaxSecrets*MaxSecret)
			}
			p.list, p.used = append(p.list, secret.New(MaxSecret)), 0
		}
		k := copy(p.list[len(p.list)-1].Bytes()[p.used:], b[n:])
		p.used += k
		n += k
	}
	return n, nil
}

// Secrets ends the writing and hands over what was written. The caller wipes it.
func (p *Pieces) Secrets() []secret.Secret {
	list := p.list
	if len(list) > 0 {
		list[len(list)-1].Truncate(p.used)
	}
	*p = Pieces{}
	return list
}

// Wipe drops what was written. After Secrets it does nothing.
func (p *Pieces) Wipe() {
	secret.WipeAll(p.list)
	*p = Pieces{}
}
