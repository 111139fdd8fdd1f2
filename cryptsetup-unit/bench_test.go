package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/dmcrypt"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/all"
	"luksmith/tokens/tpm2"
)

// The secrets of the volumes that newImage makes: keyslot 0 has the passphrase,
// keyslot 1 the key file.
const (
	rightPassphrase = "correct horse"
	rightKey        = "key file contents\n"
)

// newVolume makes a volume with those two keyslots.
func newVolume(t *testing.T, o ...luks2test.Option) *luks2test.Volume {
	t.Helper()
	v := luks2test.New(t, append([]luks2test.Option{luks2test.WithPassphrase(rightPassphrase)}, o...)...)
	v.Enroll(t, rightKey, luks2.Token{})
	return v
}

func newImage(t *testing.T) string {
	t.Helper()
	return newVolume(t).Path
}

// bench is a run of attach on this machine: everything is real but the kernel's
// mappings, token devices and events.
type bench struct {
	*attacher
	root     string // of the file system that the run sees
	messages *testenv.Output
	mapped   []dmcrypt.Request
	active   map[string]*dmcrypt.Info
	measured []string
	// beforeTable runs when the key is known and the mapping is not yet made.
	beforeTable func()
	// onQuestion runs before the agent answers.
	onQuestion func()
	mu         sync.Mutex
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{root: t.TempDir(), messages: &testenv.Output{}, active: map[string]*dmcrypt.Info{}}
	notRoots := func(string) bool { return os.Geteuid() != 0 } // so that crypttab need not be root's
	a := &app{ctx: t.Context(), root: b.root, inMemory: notRoots, out: cli.StreamTo(b.messages), types: all.New, manner: ownManner{"test"}, msg: &cli.Messages{Name: "test", Err: cli.StreamTo(b.messages)}}
	w := luks2.NewWorkspace()
	b.attacher = &attacher{app: a, patience: contest.Patience, grace: optionalGrace, workspace: w, pool: newPool(w.Hold), latch: newLatch(0),
		newHandlers: func() tokens.Set { return tokens.Set{all.New().ByName("recovery")} },
		asking:      askpass.Options{Prefix: "cryptsetup", AgentDir: filepath.Join(b.root, "ask"), Messages: a.msg},
		mapper:      mapper{b.status, b.attachMapping, func() error { return nil }},
		measure:     b.measurePCR,
		devices:     &devices{resolve: resolveFile, watch: eventsAt(), ui: &screen{}}}
	t.Cleanup(b.pool.wipe)
	return b
}

// newGrammar has the options of every token type.
func newGrammar() crypttab.Grammar { return all.New().Grammar() }

func resolveFile(ref crypttab.DeviceRef) (string, error) {
	_, err := os.Stat(ref.Value)
	return ref.Value, err
}

func (b *bench) status(name string) (*dmcrypt.Info, error) {
	if info := b.active[name]; info != nil {
		return info, nil
	}
	return nil, dmcrypt.ErrNotActive
}

func (b *bench) attachMapping(ctx context.Context, r *dmcrypt.Request) error {
	if b.beforeTable != nil {
		b.beforeTable()
	}
	if err := r.Confirm(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := *r
	kept.Key, kept.File, kept.Confirm, kept.Warn = secret.Secret{}, nil, nil, nil
	b.mapped = append(b.mapped, kept)
	return nil
}

func (b *bench) measurePCR(_ context.Context, h *tpm2.Handler, req *tpm2.MeasureRequest) (*tpm2.Measured, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.measured = append(b.measured, fmt.Sprintf("%d %v %s", h.Measure.PCR, h.Measure.Banks, tpm2.FixateValue(req.VolumeKey, req.Name, req.UUID)))
	return &tpm2.Measured{}, nil
}

// run attaches with the arguments of the command and returns the report.
func (b *bench) run(t *testing.T, args ...string) (*report, error) {
	t.Helper()
	e, err := entryOfArguments(args)
	if err != nil {
		t.Fatal(err)
	}
	j, err := b.newJob(e)
	if err != nil {
		return nil, err
	}
	if j.options.Latch {
		b.latch = newLatch(1)
	}
	err = b.attach(b.ctx, j)
	r, rerr := readReport(b.root, j.entry.Name)
	if rerr != nil || r == nil {
		t.Fatalf("report: %v, %v", r, rerr)
	}
	return r, err
}

// credential stores a passphrase as systemd's credential for this test.
func credential(t *testing.T, name, value string) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, name), []byte(value), 0o600)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
}

// question is what an agent sees.
type question map[string]string

// agent answers questions in order by systemd's protocol. The returned function
// gives what was asked so far.
func (b *bench) agent(t testing.TB, replies ...string) (asked func() []question) {
	t.Helper()
	var mu sync.Mutex
	var list []question
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go func() {
		seen := map[string]bool{}
		for len(replies) > 0 && ctx.Err() == nil {
			files, _ := filepath.Glob(filepath.Join(b.root, "ask", "ask.*"))
			for _, f := range files {
				if seen[f] || len(replies) == 0 {
					continue
				}
				seen[f] = true
				q := readQuestion(f)
				mu.Lock()
				list = append(list, q)
				mu.Unlock()
				if b.onQuestion != nil {
					b.onQuestion()
				}
				reply(q["Socket"], replies[0])
				replies = replies[1:]
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() []question {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

func readQuestion(path string) question {
	q := question{}
	f, err := os.Open(path)
	if err != nil {
		return q
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, value, ok := strings.Cut(sc.Text(), "="); ok {
			q[name] = value
		}
	}
	return q
}

func reply(socket, text string) {
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(text))
}

func (b *bench) file(t testing.TB, path, content string) string {
	t.Helper()
	path = filepath.Join(b.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	return write(t, path, []byte(content), 0o600)
}

func failedWays(r *report) (list []string) {
	for _, f := range r.Failures {
		list = append(list, f.Way)
	}
	return list
}

const uuid3 = "33333333-3333-3333-3333-333333333333"

// newVolumeWithToken has a token of systemd's type that names keyslot 1.
func newVolumeWithToken(t *testing.T, tokenType string) *luks2test.Volume {
	t.Helper()
	v := luks2test.New(t, luks2test.WithPassphrase(rightPassphrase))
	v.Enroll(t, rightKey, luks2.Token{Type: tokenType, Raw: fmt.Appendf(nil, `{"type":%q,"keyslots":[]}`, tokenType)})
	return v
}

func imageWithToken(t *testing.T, tokenType string) string {
	t.Helper()
	return newVolumeWithToken(t, tokenType).Path
}

// withoutPassphrase removes keyslot 0.
func withoutPassphrase(t *testing.T, v *luks2test.Volume) string {
	t.Helper()
	if err := v.Device.Update(t.Context(), func(tx *luks2.Tx) error { return tx.RemoveKeyslot(0) }); err != nil {
		t.Fatal(err)
	}
	return v.Path
}

// stub is a handler for systemd-tpm2 whose chip gives a fixed passphrase.
func stub(p *plug) func() tokens.Set {
	p.typ = "tpm2"
	return func() tokens.Set { return tokens.Set{p} }
}
