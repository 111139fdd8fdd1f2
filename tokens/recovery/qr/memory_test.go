package qr

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/tokens/recovery"
)

// TestNothingOfTheKeyStaysInMemory has the build that is shipped look for the key as text, as it stands in the
// code words (shifted by four bits), and as a row of modules.
func TestNothingOfTheKeyStaysInMemory(t *testing.T) {
	if !testenv.AsShipped(t) {
		return
	}
	key := recovery.Generate()
	code, err := New(key, Screen)
	if err != nil {
		t.Fatal(err)
	}
	k, modules := key.Bytes(), code.modules.Bytes()
	dark := 12*code.Size + bytes.IndexByte(modules[12*code.Size:], 1) // rarer than light ones, in memory at large
	text, row := testenv.Inverted(k[9:26]), testenv.Inverted(modules[dark:dark+code.Size])
	shifted := make([]byte, 16)
	for i := range shifted {
		shifted[i] = ^(k[9+i]<<4 | k[10+i]>>4)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, utf8 := range []bool{true, false} {
		if err := code.WriteTerminal(null, Terminal{Columns: 100, Rows: 50, UTF8: utf8, Colour: true}); err != nil {
			t.Fatal(err)
		}
	}
	live := []int{testenv.Copies(t, text), testenv.Copies(t, shifted), testenv.Copies(t, row)}
	if !slices.Equal(live, []int{1, 0, 1}) {
		t.Errorf("%v copies of text, code words and modules while the key is alive, want 1, 0 and 1", live)
	}
	key.Wipe()
	code.Wipe()
	left := []int{testenv.Copies(t, text), testenv.Copies(t, shifted), testenv.Copies(t, row)}
	if !slices.Equal(left, []int{0, 0, 0}) {
		t.Errorf("%v copies of text, code words and modules are left", left)
	}
}
