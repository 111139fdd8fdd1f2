package chip

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestPolicyVectors are values that systemd 252, 257 and 262 agree on (docs/formats.md).
func TestPolicyVectors(t *testing.T) {
	t.Parallel()
	zero := func(pcrs ...int) PCRValues {
		v := PCRValues{}
		for _, i := range pcrs {
			v[i] = make([]byte, 32)
		}
		return v
	}
	for _, c := range []struct {
		name, want string
		build      func(*Digest)
	}{
		{"nothing", strings.Repeat("00", 32), func(*Digest) {}},
		{"PCR 7", "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b", func(d *Digest) { d.PCR(BankSHA256, zero(7)) }},
		{"PCR 7+11", "384378caeddc9690b2ac9589827a756a5c46c8b33178b2fe468c80531b97a53e", func(d *Digest) { d.PCR(BankSHA256, zero(7, 11)) }},
		{"PCR 11", "fd32fa22c52cfc8e1a0c29eb38519f87084cab0b04b0d8f020a4d38b2f4e223e", func(d *Digest) { d.PCR(BankSHA256, zero(11)) }},
		{"PCR 7, PIN", "b8db92fae7c1e0c588e7352d2fc10f27c7b384e32f706a520cb10bf7ffee8970", func(d *Digest) { d.PCR(BankSHA256, zero(7)); d.AuthValue() }},
		{"PIN", "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e", func(d *Digest) { d.AuthValue() }},
		{"PCR 7, SHA-1", "84278b60d0547dc27ec6667e7afeece0711c09b5ced09a30a65b389d3afda1ef", func(d *Digest) { d.PCR(BankSHA1, PCRValues{7: make([]byte, 20)}) }},
	} {
		var d Digest
		c.build(&d)
		if hex.EncodeToString(d[:]) != c.want {
			t.Errorf("%s: %x, want %s", c.name, d, c.want)
		}
	}
}
