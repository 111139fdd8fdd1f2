package varlinkapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"

	"luksmith/luks2/secret"
)

// invalid is an org.varlink.service.InvalidParameter: the member that is wrong.
type invalid string

func (e invalid) Error() string { return fmt.Sprintf("the parameter %s is invalid", string(e)) }

// params are the members of a call. The first thing that is wrong with one stays.
type params struct {
	members map[string]json.RawMessage
	secrets []secret.Secret
	err     error
}

// parse reads the members and overwrites the text that they stand in.
func parse(raw *json.RawMessage) *params {
	p := &params{members: map[string]json.RawMessage{}}
	if raw == nil {
		return p
	}
	defer secret.Wipe(*raw)
	if json.Unmarshal(*raw, &p.members) != nil {
		p.err = invalid("parameters")
	}
	return p
}

// wipe forgets everything.
func (p *params) wipe() {
	for _, raw := range p.members {
		secret.Wipe(raw)
	}
	secret.WipeAll(p.secrets)
}

// has reports whether a member is there and not null.
func (p *params) has(name string) bool {
	raw, ok := p.members[name]
	return ok && string(raw) != "null"
}

// read reads a member, if it is there.
func (p *params) read(name string, to any) {
	if p.has(name) && json.Unmarshal(p.members[name], to) != nil {
		p.fail(name)
	}
}

func (p *params) fail(name string) {
	if p.err == nil {
		p.err = invalid(name)
	}
}

func (p *params) text(name string) (s string) { p.read(name, &s); return s }

// secret reads a text that must not stay in memory. It is borrowed until wipe.
func (p *params) secret(name string) secret.Secret {
	if !p.has(name) {
		return secret.Secret{}
	}
	s, ok := unquote(p.members[name])
	if !ok {
		p.fail(name)
	}
	p.secrets = append(p.secrets, s)
	return s
}

// unquote reads a string of JSON. One without escapes passes through no other memory.
func unquote(raw []byte) (s secret.Secret, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return secret.Secret{}, false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return secret.Copy(raw[1 : len(raw)-1]), true
	}
	whole := secret.New(len(raw)) // an escape is never shorter than what it stands for
	defer whole.Wipe()
	n := 0
	secret.Do(func() {
		var text string
		if ok = json.Unmarshal(raw, &text) == nil; ok {
			n = copy(whole.Bytes(), text)
		}
	})
	runtime.GC() // erases what was allocated inside Do: package qr
	runtime.GC()
	return secret.Copy(whole.Bytes()[:n]), ok
}

// only refuses members that the method does not have.
func (p *params) only(names ...string) {
	known := map[string]bool{"allowInteractiveAuthentication": true} // of systemd's methods, for polkit
	for _, name := range names {
		known[name] = true
	}
	for name := range p.members {
		if !known[name] {
			p.fail(name)
		}
	}
}

// must wants a member.
func (p *params) must(names ...string) {
	for _, name := range names {
		if !p.has(name) {
			p.fail(name)
		}
	}
}
