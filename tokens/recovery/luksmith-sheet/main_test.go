package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens/recovery"
	"luksmith/tokens/recovery/sheet"
	"luksmith/tokens/recovery/sheet/draw"
)

var program = testenv.NewStaticHelper(sheet.Program)

func TestMain(m *testing.M) {
	code := m.Run()
	program.Remove()
	os.Exit(code)
}

// sample is a sheet with every field set.
func sample(t testing.TB) *sheet.Sheet {
	key := recovery.Generate()
	t.Cleanup(key.Wipe)
	return &sheet.Sheet{Key: key, UUID: "8a0cc7f4-6f0c-4b5e-9d0e-0c4e0a2f9d11", Label: "root", Device: "/dev/sda2", Header: "/boot/h.img",
		Host: "ada", Keyslot: 2, Name: "safe at home", Created: time.Date(2026, 11, 23, 11, 4, 5, 6, time.FixedZone("", 3600)), Paper: sheet.Letter}
}

func drawCall(s *sheet.Sheet, f sheet.Format) helper.Call {
	return helper.Call{Method: sheet.MethodDraw, Params: sheet.DrawParams{Sheet: *s, Format: f}, Secrets: []secret.Secret{s.Key}}
}

// TestEveryFieldCrossesTheProtocol compares the answer with what the same sheet
// gives when drawn here.
func TestEveryFieldCrossesTheProtocol(t *testing.T) {
	s := sample(t)
	conn := helper.Pipe(sheet.Program, methods())
	defer conn.Close()
	var want bytes.Buffer
	if err := draw.Page(&want, s, sheet.PDF); err != nil {
		t.Fatal(err)
	}
	answer, err := conn.Call(t.Context(), drawCall(s, sheet.PDF), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer secret.WipeAll(answer)
	whole := secret.Join(answer...)
	defer whole.Wipe()
	if !bytes.Equal(whole.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes differ from the %d drawn here", whole.Len(), want.Len())
	}
}

func TestBadRequests(t *testing.T) {
	s := sample(t)
	conn := helper.Pipe(sheet.Program, methods())
	defer conn.Close()
	for name, call := range map[string]helper.Call{
		"no key":         {Method: sheet.MethodDraw, Params: sheet.DrawParams{Sheet: *s}},
		"two keys":       {Method: sheet.MethodDraw, Params: sheet.DrawParams{Sheet: *s}, Secrets: []secret.Secret{s.Key, s.Key}},
		"no parameters":  {Method: sheet.MethodDraw, Params: json.RawMessage(`"x"`), Secrets: []secret.Secret{s.Key}},
		"unknown format": drawCall(s, 7),
		"unknown method": {Method: "print"},
	} {
		answer, err := conn.Call(t.Context(), call, nil)
		if _, ok := errors.AsType[*helper.Error](err); !ok || len(answer) > 0 {
			t.Errorf("%s: %v, %d secrets", name, err, len(answer))
		}
	}
}

// TestNothingOfTheKeyStaysInMemory runs the program's side of a session in this
// process and looks for the key as text and in the UTF-16 of the PDF. Pixels in the
// compressor's buffers are beyond it.
func TestNothingOfTheKeyStaysInMemory(t *testing.T) {
	if !testenv.AsShipped(t) {
		return
	}
	s := sample(t)
	var wide []byte
	for _, c := range recovery.Group(s.Key, 5) {
		wide = append(wide, 0, c)
	}
	text, utf16 := testenv.Inverted(s.Key.Bytes()[9:35]), testenv.Inverted(wide[1:]) // a search for a zero first is slow
	secret.Wipe(wide)
	conn := helper.Pipe(sheet.Program, methods())
	defer conn.Close()
	for _, f := range []sheet.Format{sheet.PDF, sheet.PNG} {
		answer, err := conn.Call(t.Context(), drawCall(s, f), nil)
		if err != nil {
			t.Fatal(err)
		}
		secret.WipeAll(answer)
	}
	if n := testenv.Copies(t, text); n != 1 {
		t.Errorf("%d copies while the key is alive, want only the key", n)
	}
	s.Key.Wipe()
	if n, m := testenv.Copies(t, text), testenv.Copies(t, utf16); n+m != 0 {
		t.Errorf("%d copies of the text and %d in UTF-16 are left", n, m)
	}
}

// TestCtrlCIsLeftToTheCommand: the program lives while the command asks questions,
// and a Ctrl-C reaches both.
func TestCtrlCIsLeftToTheCommand(t *testing.T) {
	cmd := exec.Command(program.Path(t))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 256)); err != nil { // the greeting
		t.Errorf("reading the greeting: %v", err)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
}
