package fidotest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/tokens/fido2/wire"
)

// programs is the folder with what Program built for this test binary.
var programs struct {
	sync.Mutex
	dir string
}

// Main runs the tests of a package that uses [Program], and removes what that
// built: func TestMain(m *testing.M) { os.Exit(fidotest.Main(m)) }.
func Main(m *testing.M) (status int) {
	status = m.Run()
	programs.Lock()
	defer programs.Unlock()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	return status
}

// Program returns the path of a luksmith-fido2 built for this test binary. It
// skips the test where that cannot be built.
func Program(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat("/usr/include/fido.h"); err != nil {
		testenv.Missing(t, "libfido2-dev", "sh .ci/install-deps installs it")
	}
	testenv.Need(t, "gcc")
	programs.Lock()
	defer programs.Unlock()
	path := filepath.Join(programs.dir, wire.Program)
	if programs.dir != "" {
		return path
	}
	dir, err := os.MkdirTemp("", wire.Program+".")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, wire.Program)
	cmd := exec.Command("go", "build", "-o", path, "luksmith/tokens/fido2/luksmith-fido2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		t.Fatalf("building %s: %v\n%s", wire.Program, err, out)
	}
	programs.dir = dir
	return path
}

// Dial starts the real helper program, for the field Dial of a handler.
func Dial(t testing.TB) func(context.Context) (helper.Conn, error) {
	t.Helper()
	path := Program(t)
	return func(ctx context.Context) (helper.Conn, error) {
		p, err := helper.StartPath(ctx, path)
		if err != nil {
			return nil, err // and not p, whose nil would not be one as a Conn
		}
		return p, nil
	}
}
