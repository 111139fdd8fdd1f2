package e2e

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/fidotest"
)

// keyTimeout is more than enough for a command to a security key.
const keyTimeout = 40 * time.Second

// SecurityKey is a FIDO2 key of software in a guest, where it is a hidraw device
// like any other.
type SecurityKey struct {
	p    *Process
	seen int // bytes of its output that were read
}

// PlugKey plugs a security key in, which is there until the end of the test. The
// arguments are those of internal/test/fidotest/virtual-key. The guest's module uhid
// has to be loaded.
func (vm *VM) PlugKey(t testing.TB, args ...string) *SecurityKey {
	t.Helper()
	program := vm.Program(t, "./internal/test/fidotest/virtual-key")
	k := &SecurityKey{p: vm.Start(t, Command{Args: append([]string{program, "--uhid"}, args...), KeepOpen: true})}
	k.await(t, "ready\n")
	t.Cleanup(func() {
		if k.p.Running() {
			k.p.Signal(t, syscall.SIGKILL)
		}
		k.p.Wait(t)
	})
	return k
}

// Tell gives the key an order, such as "unplug", and returns what it prints.
func (k *SecurityKey) Tell(t testing.TB, order string) string {
	t.Helper()
	k.p.Write(t, order+"\n")
	answer := k.await(t, "ok\n")
	if strings.Contains(answer, "error: ") {
		t.Fatalf("security key: %s: %s", order, answer)
	}
	return answer
}

// await returns what the key prints before some text.
func (k *SecurityKey) await(t testing.TB, text string) (before string) {
	t.Helper()
	var ok bool
	k.p.until(keyTimeout, func() bool {
		printed := k.p.out[0].String()[k.seen:]
		if before, _, ok = strings.Cut(printed, text); ok {
			k.seen += len(before) + len(text)
		}
		return ok || strings.Contains(printed, "error: ") || k.p.exit != nil || k.p.err != ""
	})
	if !ok {
		t.Fatalf("security key: no %q, but %q", text, before)
	}
	return before
}

// KeyStats are the counts of a key.
type KeyStats struct {
	fidotest.Stats
	PINRetries int
}

// Stats returns the counts so far.
func (k *SecurityKey) Stats(t testing.TB) (s KeyStats) {
	t.Helper()
	if err := json.Unmarshal([]byte(k.Tell(t, "stats")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
