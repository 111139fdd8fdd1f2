package varlinkapi

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// fake notes what it is asked to do.
type fake struct {
	last    Request
	secrets [4]string
	err     error
}

func (f *fake) note(r *Request) {
	f.last = *r
	for i, s := range []secret.Secret{r.Secrets.Passphrase, r.Secrets.NewPassphrase, r.Secrets.PIN, r.Secrets.NewPIN} {
		f.secrets[i] = string(s.Bytes())
	}
}

func (f *fake) Slots(context.Context, string) ([]Slot, error) {
	return []Slot{{0, "password"}, {3, ""}}, f.err
}

func (f *fake) Enroll(_ context.Context, r *Request) (*Enrolled, error) {
	f.note(r)
	r.Touch()
	return &Enrolled{Slot: 7, Wiped: []int{1, 2}, Key: secret.Copy([]byte("the key"))}, f.err
}

func (f *fake) Run(_ context.Context, verb string, r *Request) (json.RawMessage, error) {
	f.note(r)
	return json.RawMessage(`{"verb":"` + verb + `"}`), f.err
}

// talk serves a caller who sends this, and returns the replies.
func talk(t *testing.T, b Backend, text string) []string {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		ends[i] = c.(*net.UnixConn)
	}
	go func() {
		_, _ = ends[0].Write([]byte(text))
		_ = ends[0].CloseWrite()
	}()
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), ends[1], b) }()
	var replies []string
	for r := bufio.NewReader(ends[0]); ; {
		reply, err := r.ReadString(0)
		if err != nil {
			break
		}
		replies = append(replies, strings.TrimSuffix(reply, "\x00"))
	}
	_ = ends[0].Close()
	if err := <-done; err != nil {
		t.Logf("Serve: %v", err)
	}
	return replies
}

func TestEnrollAsSystemd(t *testing.T) {
	f := &fake{}
	got := talk(t, f, `{"method":"io.systemd.CryptEnroll.Enroll","more":true,"parameters":{"node":"/dev/sda2","mechanism":"fido2","unlockPassword":"a\"\u00e4b",`+
		`"fido2Pin":"1234","fido2WithClientPin":false,"fido2WithUserPresence":true,"wipeSlots":[4,5],"wipeTypes":["tpm2"],"password":null}}`+"\x00")
	want := []string{`{"parameters":{"state":"touch"},"continues":true}`, `{"parameters":{"keyslot":7,"wipedSlots":[1,2],"recoveryKey":"the key"}}`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("replies %q", got)
	}
	words := "--fido2-device=auto --fido2-with-client-pin=false --fido2-with-user-presence=true --wipe-slot=tpm2,4,5"
	if r := f.last; strings.Join(r.Words, " ") != words || r.Node != "/dev/sda2" || !r.AsSystemd || !r.UnlockByPassphrase || f.secrets != [4]string{"a\"äb", "", "1234", ""} {
		t.Errorf("asked for %+v with %q", r, f.secrets)
	}
}

func TestEnrollWithOptions(t *testing.T) {
	f := &fake{}
	got := talk(t, f, `{"method":"luksmith.CryptEnroll.Enroll","parameters":{"node":"n","pin":"p","newPin":"q","password":"r","options":{"tpm2-pcrs":"","tpm2-device":"auto"}}}`+"\x00"+
		`{"method":"luksmith.CryptEnroll.Doctor","parameters":{"node":"n"}}`+"\x00")
	want := []string{`{"parameters":{"keyslot":7,"wipedSlots":[1,2],"recoveryKey":"the key"}}`, `{"parameters":{"result":{"verb":"doctor"}}}`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("replies %q", got)
	}
}

func TestWhatIsWrongWithACall(t *testing.T) {
	for call, want := range map[string]string{
		`{"method":"io.systemd.CryptEnroll.ListSlots","parameters":{"node":"n"}}`:                                                               `org.varlink.service.ExpectedMore`,
		`{"method":"io.systemd.CryptEnroll.ListSlots","more":true,"parameters":{"node":"n"}}`:                                                   `{"parameters":{"slot":0,"type":"password"},"continues":true}`,
		`{"method":"io.systemd.CryptEnroll.ListSlots","more":true}`:                                                                             `"parameter":"node"`,
		`{"method":"io.systemd.CryptEnroll.ListSlots","more":true,"parameters":{"node":""}}`:                                                    `"parameter":"node"`,
		`{"method":"io.systemd.CryptEnroll.ListSlots","more":true,"parameters":[]}`:                                                             `"parameter":"parameters"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"tpm2","unlockPassword":"x"}}`:                          `"parameter":"mechanism"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password"}}`:                                           `"parameter":"unlockPassword"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password","unlockPassword":"x","unlockKeyFile":"/k"}}`: `"parameter":"unlockKeyFile"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password","unlockPassword":"x","wipeSlots":[-1]}}`:     `"parameter":"wipeSlots"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password","unlockPassword":"x","wipeTypes":["all"]}}`:  `"parameter":"wipeTypes"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password","unlockPassword":"x","label":"y"}}`:          `"parameter":"label"`,
		`{"method":"io.systemd.CryptEnroll.Enroll","parameters":{"node":"n","mechanism":"password","unlockKeyFileDescriptorIndex":0}}`:          `"parameter":"unlockKeyFileDescriptorIndex"`,
		`{"method":"luksmith.CryptEnroll.Enroll","parameters":{"node":"n","options":{"json":"pretty"}}}`:                                        `"parameter":"options"`,
		`{"method":"luksmith.CryptEnroll.Enroll","parameters":{"node":"n","options":{"a=b":""}}}`:                                               `"parameter":"options"`,
		`{"method":"luksmith.CryptEnroll.Format","parameters":{"node":"n"}}`:                                                                    `MethodNotFound`,
		`{"method":"luksmith.Other.Format"}`: `InterfaceNotFound`,
	} {
		if got := talk(t, &fake{}, call+"\x00"); len(got) == 0 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %q, want %s", call, got, want)
		}
	}
}

// TestMessagesThatAreNoneEndTheConnection: too long, cut, no JSON.
func TestMessagesThatAreNoneEndTheConnection(t *testing.T) {
	for _, text := range []string{"", "{}", strings.Repeat(" ", maxMessage+1) + "\x00", "hello\x00", "\x00"} {
		if got := talk(t, &fake{}, text); len(got) > 0 {
			t.Errorf("%.20q: %q", text, got)
		}
	}
}

// FuzzServe: what a caller sends must end in a reply or the end of the connection.
func FuzzServe(f *testing.F) {
	f.Add(`{"method":"luksmith.CryptEnroll.Enroll","parameters":{"node":"n","pin":"\ud800","options":{"x":"y"}}}` + "\x00")
	f.Add(`{"method":"org.varlink.service.GetInfo"}` + "\x00")
	f.Fuzz(func(t *testing.T, text string) { talk(t, &fake{}, text) })
}
