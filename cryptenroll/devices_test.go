package main

import (
	"context"
	"crypto/rsa"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
)

// helpers are the programs that the command starts.
var helpers = map[string]*testenv.Helper{
	"luksmith-sheet":  testenv.NewStaticHelper("luksmith-sheet"),
	"luksmith-initrd": testenv.NewStaticHelper("luksmith-initrd"),
	"luksmith-fido2":  testenv.NewHelper("luksmith-fido2"),
	"luksmith-pkcs11": testenv.NewHelper("luksmith-pkcs11"),
}

// install puts a helper program where the command looks for it: beside itself.
func install(t testing.TB, name, command string) {
	t.Helper()
	path := helpers[name].Path(t)
	if err := os.Symlink(path, filepath.Join(filepath.Dir(command), name)); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
}

// cmdHelper installs a helper program: `helper NAME`.
func cmdHelper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || helpers[args[0]] == nil {
		ts.Fatalf("usage: helper NAME")
	}
	installFor(ts, args[0])
}

// installFor is install for the command that a script runs.
func installFor(ts *testscript.TestScript, name string) {
	dir, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	install(devicesOf(ts).t, name, filepath.Join(dir, "cryptenroll"))
}

// devicesKey is where a script keeps its devices.
type devicesKey struct{}

// devices are the security devices of one script. They end with the whole test.
type devices struct {
	t      testing.TB
	chip   *testenv.TPM
	signer *rsa.PrivateKey // of PCR policies
	keys   map[string]*fidotest.Key
	hsm    *testenv.SoftHSM
	boots  string // folder of real boots

	names   []string // see cmdNamed
	answers []testenv.Answer
}

func devicesOf(ts *testscript.TestScript) *devices { return ts.Value(devicesKey{}).(*devices) }

// cmdKey plugs in security keys of software, which libfido2 finds behind
// pseudo-terminals: `key NAME PIN` sets $NAME to the path. `touches NAME N` after it
// wants so many touches since the last time.
func cmdKey(ts *testscript.TestScript, neg bool, args []string) {
	d := devicesOf(ts)
	switch {
	case neg || len(args) < 2:
		ts.Fatalf("usage: key NAME PIN | touches NAME N | retries NAME N | unplug NAME")
	case args[0] == "touches", args[0] == "retries":
		want, err := strconv.Atoi(args[2])
		ts.Check(err)
		got := d.keys[args[1]].Stats().Touches
		if args[0] == "retries" {
			got = d.keys[args[1]].PINRetries()
		}
		if got != want {
			ts.Fatalf("%s of %s: %d, want %d", args[0], args[1], got, want)
		}
	case args[0] == "unplug":
		d.keys[args[1]].Unplug()
	default:
		installFor(ts, "luksmith-fido2")
		k := fidotest.New(fidotest.Config{PIN: args[1], Product: "Software Key"})
		ctx, cancel := context.WithCancel(context.Background())
		d.t.Cleanup(cancel)
		path, err := k.Terminal(ctx)
		ts.Check(err)
		if d.keys == nil {
			d.keys = map[string]*fidotest.Key{}
		}
		d.keys[args[0]] = k
		ts.Setenv(args[0], path)
	}
}
