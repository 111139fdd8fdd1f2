package fidotest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"luksmith/internal/helper"
	"luksmith/luks2/secret"
	"luksmith/tokens/fido2/wire"
)

// Bench is a set of keys behind the protocol of luksmith-fido2, in this process.
type Bench struct {
	mu   sync.Mutex
	keys map[string]*Key // by path
	// Sessions counts the connections.
	sessions int
}

// NewBench returns a bench with keys at /dev/hidraw0, /dev/hidraw1, …
func NewBench(keys ...*Key) *Bench {
	b := &Bench{keys: map[string]*Key{}}
	for i, k := range keys {
		b.Put(Path(i), k)
	}
	return b
}

// Path is the path of the n-th key of NewBench.
func Path(n int) string { return "/dev/hidraw" + string(rune('0'+n)) }

// Put plugs a key in at a path.
func (b *Bench) Put(path string, k *Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[path] = k
}

// Sessions is the number of connections that were made.
func (b *Bench) Sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions
}

// Dial starts a session, in place of the helper program.
func (b *Bench) Dial(context.Context) (helper.Conn, error) {
	b.mu.Lock()
	b.sessions++
	b.mu.Unlock()
	return helper.Pipe(wire.Program, wire.Methods(func(func(string)) wire.Backend { return b })), nil
}

var _ wire.Backend = (*Bench)(nil)

func (b *Bench) plugged(ctx context.Context, path string) (*platform, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.keys[path]
	if k == nil || !k.PluggedIn() {
		return nil, fail(wire.NoDevice)
	}
	return newPlatform(ctx, k)
}

// List implements [wire.Backend].
func (b *Bench) List(context.Context) ([]wire.Device, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []wire.Device
	for _, path := range slices.Sorted(maps.Keys(b.keys)) {
		if k := b.keys[path]; k.PluggedIn() {
			list = append(list, wire.Device{Path: path, Manufacturer: "luksmith", Product: k.product()})
		}
	}
	return list, nil
}

func (k *Key) product() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config.Product
}

// Info implements [wire.Backend].
func (b *Bench) Info(ctx context.Context, path string) (*wire.Info, error) {
	p, err := b.plugged(ctx, path)
	if err != nil {
		return nil, err
	}
	return p.wireInfo(ctx)
}

// MakeCredential implements [wire.Backend].
func (b *Bench) MakeCredential(ctx context.Context, c *wire.NewCredential, pin secret.Secret) (*wire.Credential, error) {
	p, err := b.plugged(ctx, c.Path)
	if err != nil {
		return nil, err
	}
	return p.makeCredential(ctx, c, pin)
}

// Assert implements [wire.Backend].
func (b *Bench) Assert(ctx context.Context, a *wire.Assertion, pin, salts secret.Secret) (*wire.Asserted, error) {
	p, err := b.plugged(ctx, a.Path)
	if err != nil {
		return nil, err
	}
	return p.assert(ctx, a, pin, salts)
}
