package wire

import (
	"context"
	"fmt"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
)

// Names of the methods on the connection.
const (
	methodList   = "list"
	methodInfo   = "info"
	methodCreate = "make-credential"
	methodAssert = "assert"
)

// EventInUse tells the caller that another program holds the device and that the
// backend waits for it.
const EventInUse = "in-use"

// Client asks a backend over a connection. It is a [Backend] itself.
type Client struct {
	Conn helper.Conn
	// OnEvent is told of events during a call, such as EventInUse. May be nil.
	OnEvent func(event string)
}

var _ Backend = (*Client)(nil)

// Close ends the session; see [helper.Conn].
func (c *Client) Close() error { return c.Conn.Close() }

type pathParams struct {
	Path string `json:"path"`
}

// List implements [Backend].
func (c *Client) List(ctx context.Context) ([]Device, error) {
	var list []Device
	if _, err := c.call(ctx, helper.Call{Method: methodList}, &list); err != nil {
		return nil, err
	}
	return list, checkDevices(list)
}

func checkDevices(list []Device) error {
	if len(list) > MaxDevices {
		return broken(fmt.Errorf("%d devices", len(list)))
	}
	for _, d := range list {
		if err := checkPath(d.Path); err != nil {
			return broken(err)
		}
	}
	return nil
}

// Info implements [Backend].
func (c *Client) Info(ctx context.Context, path string) (*Info, error) {
	if err := checkPath(path); err != nil {
		return nil, badRequest(err)
	}
	var info Info
	if _, err := c.call(ctx, helper.Call{Method: methodInfo, Params: pathParams{path}}, &info); err != nil {
		return nil, err
	}
	if err := info.check(); err != nil {
		return nil, broken(err)
	}
	return &info, nil
}

// MakeCredential implements [Backend].
func (c *Client) MakeCredential(ctx context.Context, n *NewCredential, pin secret.Secret) (*Credential, error) {
	if err := checkCreate(n, pin); err != nil {
		return nil, badRequest(err)
	}
	var cred Credential
	if _, err := c.call(ctx, helper.Call{Method: methodCreate, Params: n, Secrets: []secret.Secret{pin}}, &cred); err != nil {
		return nil, err
	}
	if err := checkCredentialID(cred.ID); err != nil {
		return nil, broken(err)
	}
	return &cred, nil
}

// Assert implements [Backend].
func (c *Client) Assert(ctx context.Context, a *Assertion, pin, salts secret.Secret) (*Asserted, error) {
	if err := checkAssert(a, pin, salts); err != nil {
		return nil, badRequest(err)
	}
	var answer Asserted
	secrets, err := c.call(ctx, helper.Call{Method: methodAssert, Params: a, Secrets: []secret.Secret{pin, salts}}, &answer)
	if err != nil {
		return nil, err
	}
	if len(secrets) == 1 && secrets[0].Len() == salts.Len() {
		answer.Secret = secrets[0]
		return &answer, nil
	}
	secret.WipeAll(secrets)
	return nil, broken(fmt.Errorf("%d secrets for %d bytes of salt", len(secrets), salts.Len()))
}

// call hands the secrets of the answer to its caller, who wipes them.
func (c *Client) call(ctx context.Context, call helper.Call, result any) ([]secret.Secret, error) {
	call.OnEvent = c.OnEvent
	return c.Conn.Call(ctx, call, result)
}

func broken(err error) error {
	return &helper.Error{Code: Broken, Message: "answer has " + err.Error()}
}

func badRequest(err error) error { return &helper.Error{Code: "bad-request", Message: err.Error()} }
