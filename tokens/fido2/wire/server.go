package wire

import (
	"cmp"
	"context"
	"fmt"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
)

// Methods makes a backend answer on a connection, see [helper.Serve]. notify in
// NewBackend sends an event; each request gets a backend with its own.
func Methods(newBackend func(notify func(event string)) Backend) map[string]helper.Method {
	serve := func(f func(ctx context.Context, b Backend, r *helper.Request) (*helper.Reply, error)) helper.Method {
		return func(ctx context.Context, r *helper.Request) (*helper.Reply, error) {
			return f(ctx, newBackend(r.Notify), r)
		}
	}
	return map[string]helper.Method{
		methodList:   serve(serveList),
		methodInfo:   serve(serveInfo),
		methodCreate: serve(serveCreate),
		methodAssert: serve(serveAssert),
	}
}

func serveList(ctx context.Context, b Backend, _ *helper.Request) (*helper.Reply, error) {
	list, err := b.List(ctx)
	if err != nil {
		return nil, err
	}
	return &helper.Reply{Result: list}, nil
}

func serveInfo(ctx context.Context, b Backend, r *helper.Request) (*helper.Reply, error) {
	var p pathParams
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, badRequest(err)
	}
	info, err := b.Info(ctx, p.Path)
	if err != nil {
		return nil, err
	}
	return &helper.Reply{Result: info}, nil
}

func serveCreate(ctx context.Context, b Backend, r *helper.Request) (*helper.Reply, error) {
	var n NewCredential
	if err := r.Decode(&n); err != nil {
		return nil, err
	}
	if len(r.Secrets) != 1 {
		return nil, badRequest(fmt.Errorf("%d secrets instead of 1", len(r.Secrets)))
	}
	if err := checkCreate(&n, r.Secrets[0]); err != nil {
		return nil, badRequest(err)
	}
	c, err := b.MakeCredential(ctx, &n, r.Secrets[0])
	if err != nil {
		return nil, err
	}
	return &helper.Reply{Result: c}, nil
}

func serveAssert(ctx context.Context, b Backend, r *helper.Request) (*helper.Reply, error) {
	var a Assertion
	if err := r.Decode(&a); err != nil {
		return nil, err
	}
	if len(r.Secrets) != 2 {
		return nil, badRequest(fmt.Errorf("%d secrets instead of 2", len(r.Secrets)))
	}
	if err := checkAssert(&a, r.Secrets[0], r.Secrets[1]); err != nil {
		return nil, badRequest(err)
	}
	answer, err := b.Assert(ctx, &a, r.Secrets[0], r.Secrets[1])
	if err != nil {
		return nil, err
	}
	return &helper.Reply{Result: answer, Secrets: []secret.Secret{answer.Secret}}, nil
}

// checkCreate and checkAssert run at both ends.
func checkCreate(n *NewCredential, pin secret.Secret) error {
	return cmp.Or(n.check(), checkOptionalPIN(pin))
}

func checkAssert(a *Assertion, pin, salts secret.Secret) error {
	return cmp.Or(a.check(), checkOptionalPIN(pin), checkSalts(salts))
}

func checkOptionalPIN(pin secret.Secret) error {
	if pin.Len() == 0 {
		return nil
	}
	return CheckPIN(pin)
}
