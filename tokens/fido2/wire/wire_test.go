package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
)

// recorder is a backend that remembers what reached it.
type recorder struct{ calls []string }

func (r *recorder) List(context.Context) ([]Device, error) {
	r.calls = append(r.calls, "list")
	return []Device{{Path: "/dev/hidraw0"}}, nil
}

func (r *recorder) Info(_ context.Context, path string) (*Info, error) {
	r.calls = append(r.calls, "info "+path)
	return &Info{AAGUID: make([]byte, 16), PINRetries: 8}, nil
}

func (r *recorder) MakeCredential(_ context.Context, c *NewCredential, pin secret.Secret) (*Credential, error) {
	r.calls = append(r.calls, fmt.Sprintf("create %s %d", c.RP, pin.Len()))
	return &Credential{ID: []byte{1}}, nil
}

func (r *recorder) Assert(_ context.Context, a *Assertion, pin, salts secret.Secret) (*Asserted, error) {
	r.calls = append(r.calls, fmt.Sprintf("assert %x %d %d", a.Credential, pin.Len(), salts.Len()))
	return &Asserted{UP: true, Secret: salts.Clone()}, nil
}

func serve(t *testing.T, b Backend) *Client {
	t.Helper()
	c := &Client{Conn: helper.Pipe(Program, Methods(func(func(string)) Backend { return b }))}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newCredential() *NewCredential {
	return &NewCredential{Path: "/dev/hidraw0", RP: "r", RPName: "n", UserID: []byte("u"), UserName: "u", Algorithm: ES256}
}

func assertion() *Assertion {
	return &Assertion{Path: "/dev/hidraw0", RP: "r", Credential: []byte{1, 2}}
}

func TestRequestsCross(t *testing.T) {
	r := &recorder{}
	c := serve(t, r)
	pin, salts := secret.Copy([]byte("1234")), secret.New(64)
	defer pin.Wipe()
	defer salts.Wipe()
	if list, err := c.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if info, err := c.Info(t.Context(), "/dev/hidraw0"); err != nil || info.PINRetries != 8 {
		t.Errorf("%v, %v", info, err)
	}
	if made, err := c.MakeCredential(t.Context(), newCredential(), pin); err != nil || len(made.ID) != 1 {
		t.Errorf("%v, %v", made, err)
	}
	for _, s := range []secret.Secret{salts, {}} {
		answer, err := c.Assert(t.Context(), assertion(), secret.Secret{}, s)
		if err != nil || !answer.UP || answer.UV || answer.Secret.Len() != s.Len() {
			t.Fatalf("%v, %v", answer, err)
		}
		answer.Secret.Wipe()
	}
	want := "list,info /dev/hidraw0,create r 4,assert 0102 0 64,assert 0102 0 0"
	if got := strings.Join(r.calls, ","); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// badCreations and badAssertions are requests that C must never see.
var badCreations = map[string]func(*NewCredential){
	"no path":              func(n *NewCredential) { n.Path = "" },
	"path with zero byte":  func(n *NewCredential) { n.Path = "/dev/x\x00y" },
	"no relying party":     func(n *NewCredential) { n.RP = "" },
	"long relying party":   func(n *NewCredential) { n.RP = strings.Repeat("r", 254) },
	"relying party cut":    func(n *NewCredential) { n.RP = "r\x00s" },
	"name cut":             func(n *NewCredential) { n.RPName = "\x00" },
	"no user":              func(n *NewCredential) { n.UserID = nil },
	"long user":            func(n *NewCredential) { n.UserID = make([]byte, 65) },
	"no user name":         func(n *NewCredential) { n.UserName = "" },
	"user name cut":        func(n *NewCredential) { n.UserName = "a\x00" },
	"display name escapes": func(n *NewCredential) { n.DisplayName = "\x1b[2J" },
	"unknown algorithm":    func(n *NewCredential) { n.Algorithm = 0 },
	"unknown option":       func(n *NewCredential) { n.RK = 3 },
	"negative option":      func(n *NewCredential) { n.UV = -1 },
}

var badAssertions = map[string]func(*Assertion){
	"no credential":     func(a *Assertion) { a.Credential = nil },
	"long credential":   func(a *Assertion) { a.Credential = make([]byte, 1024) },
	"huge credential":   func(a *Assertion) { a.Credential = make([]byte, 2000) },
	"no path":           func(a *Assertion) { a.Path = "" },
	"no relying party":  func(a *Assertion) { a.RP = "" },
	"unknown option":    func(a *Assertion) { a.UP = 9 },
	"relying party cut": func(a *Assertion) { a.RP = "\x00" },
}

// Both ends refuse: the caller's for its own sake, and the helper's because it
// stands before the C library.
func TestBadRequestsReachNoBackend(t *testing.T) {
	r := &recorder{}
	c := serve(t, r)
	raw := func(method string, params any, secrets ...secret.Secret) error {
		_, err := c.Conn.Call(t.Context(), helper.Call{Method: method, Params: params, Secrets: secrets}, nil)
		return err
	}
	check := func(name string, errs ...error) {
		for _, err := range errs {
			if CodeOf(err) != "bad-request" || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, change := range badCreations {
		n := newCredential()
		change(n)
		_, err := c.MakeCredential(t.Context(), n, secret.Secret{})
		check(name, err, raw(methodCreate, n, secret.Secret{}))
	}
	for name, change := range badAssertions {
		a := assertion()
		change(a)
		_, err := c.Assert(t.Context(), a, secret.Secret{}, secret.Secret{})
		check(name, err, raw(methodAssert, a, secret.Secret{}, secret.Secret{}))
	}
	for _, text := range []string{"123", strings.Repeat("1", 64), "12\x003"} {
		pin := secret.Copy([]byte(text))
		defer pin.Wipe()
		_, err := c.Assert(t.Context(), assertion(), pin, secret.Secret{})
		_, err2 := c.MakeCredential(t.Context(), newCredential(), pin)
		check("PIN "+text, err, err2, raw(methodAssert, assertion(), pin, secret.Secret{}))
	}
	for _, n := range []int{1, 31, 33, 63, 65, 96} {
		salts := secret.New(n)
		defer salts.Wipe()
		_, err := c.Assert(t.Context(), assertion(), secret.Secret{}, salts)
		check(fmt.Sprintf("%d bytes of salt", n), err, raw(methodAssert, assertion(), secret.Secret{}, salts))
	}
	_, err := c.Info(t.Context(), "")
	check("secrets missing", err, raw(methodAssert, assertion()), raw(methodCreate, newCredential()),
		raw(methodInfo, pathParams{}), raw(methodInfo, []int{1}), raw("reset", nil))
	if len(r.calls) != 0 {
		t.Errorf("the backend was called: %q", r.calls)
	}
}

// answering is a helper that answers everything with the same JSON and secrets.
func answering(t *testing.T, result string, secrets ...int) *Client {
	method := func(context.Context, *helper.Request) (*helper.Reply, error) {
		r := &helper.Reply{Result: json.RawMessage(result)}
		for _, n := range secrets {
			r.Secrets = append(r.Secrets, secret.New(n))
		}
		return r, nil
	}
	methods := map[string]helper.Method{}
	for _, name := range []string{methodList, methodInfo, methodCreate, methodAssert} {
		methods[name] = method
	}
	c := &Client{Conn: helper.Pipe(Program, methods)}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestBadAnswers(t *testing.T) {
	aaguid := `"AAAAAAAAAAAAAAAAAAAAAA=="`
	many := strings.Repeat(`"x",`, 300) + `"x"`
	id := func(n int) string {
		b, _ := json.Marshal(Credential{make([]byte, n)})
		return string(b)
	}
	salts := secret.New(32)
	defer salts.Wipe()
	info := func(c *Client) error { _, err := c.Info(t.Context(), "/dev/x"); return err }
	list := func(c *Client) error { _, err := c.List(t.Context()); return err }
	create := func(c *Client) error {
		_, err := c.MakeCredential(t.Context(), newCredential(), secret.Secret{})
		return err
	}
	assert := func(c *Client) error {
		_, err := c.Assert(t.Context(), assertion(), secret.Secret{}, salts)
		return err
	}
	for name, tt := range map[string]struct {
		client *Client
		call   func(*Client) error
	}{
		"short AAGUID":         {answering(t, `{"aaguid":"AAAA"}`), info},
		"too many extensions":  {answering(t, `{"aaguid":`+aaguid+`,"extensions":[`+many+`]}`), info},
		"tries below nothing":  {answering(t, `{"aaguid":`+aaguid+`,"pin_retries":-2}`), info},
		"tries without end":    {answering(t, `{"aaguid":`+aaguid+`,"pin_retries":100000}`), info},
		"too many devices":     {answering(t, `[`+strings.Repeat(`{"path":"/dev/x"},`, 64)+`{"path":"/dev/x"}]`), list},
		"device without path":  {answering(t, `[{}]`), list},
		"empty credential id":  {answering(t, id(0)), create},
		"long credential id":   {answering(t, id(2000)), create},
		"no secret":            {answering(t, `{}`), assert},
		"short secret":         {answering(t, `{}`, 16), assert},
		"long secret":          {answering(t, `{}`, 64), assert},
		"two secrets":          {answering(t, `{}`, 32, 32), assert},
		"secret of a thousand": {answering(t, `{}`, 1000), assert},
	} {
		if err := tt.call(tt.client); CodeOf(err) != Broken {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, result := range map[string]string{"list": `[1]`, "text": `"x"`} {
		if err := info(answering(t, result)); !errors.Is(err, helper.ErrProtocol) {
			t.Errorf("answer is a %s: %v", name, err)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"aaguid":"AAAAAAAAAAAAAAAAAAAAAA==","options":{"uv":true},"pin_retries":8}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var i Info
		if json.Unmarshal(b, &i) == nil && i.check() == nil && (len(i.AAGUID) != 16 || i.PINRetries < -1) {
			t.Errorf("accepted %+v", i)
		}
	})
}
