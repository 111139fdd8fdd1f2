package testenv

import (
	"bytes"
	"testing"
)

func TestTPMCountsResetsAndExtends(t *testing.T) {
	for _, o := range []TPMOptions{{}, {TCP: true}} {
		m := StartTPM(t, o)
		m.Extend(7, "sha256", bytes.Repeat([]byte{1}, 32))
		m.Mark()
		readPCR7 := []byte{0, 0, 0, 1, 0, 0xb, 3, 0x80, 0, 0}
		m.run(0x8001, 0x17e, readPCR7)
		list := m.Commands()
		if len(list) != 1 || list[0].Code != 0x17e || !bytes.HasSuffix(list[0].Command, readPCR7) {
			t.Fatalf("%s: the log shows %v, want one PCR_Read", m.Device(), list)
		}
		if bytes.HasSuffix(list[0].Response, make([]byte, 32)) {
			t.Errorf("%s: PCR 7 is zero after Extend", m.Device())
		}
		m.Reset()
		m.Mark()
		m.run(0x8001, 0x17e, readPCR7)
		if list = m.Commands(); !bytes.HasSuffix(list[0].Response, make([]byte, 32)) {
			t.Errorf("%s: PCR 7 is %x after Reset, want zero", m.Device(), list[0].Response)
		}
	}
}
