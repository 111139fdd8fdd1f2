package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// TestModulesOfP11KitsConfiguration puts a faulty module beside SoftHSM's into what
// p11-kit reads, in a mount namespace.
func TestModulesOfP11KitsConfiguration(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	testenv.Need(t, "unshare")
	for _, c := range []struct {
		fault string
		want  error
	}{
		{"missing", nil},         // p11-kit leaves out what it cannot load
		{"fail-initialize", nil}, // and what does not start
		{"crash-initialize", helper.ErrCrashed},
		{"hang-initialize", tokens.ErrTimeout},
	} {
		t.Run(c.fault, func(t *testing.T) {
			t.Parallel()
			store := fixtureStore(t)
			module, env := faultModule.Path(t), faultModule.Env(t, store, c.fault)
			if c.fault == "missing" {
				module += ".gone"
			}
			conf := t.TempDir()
			for name, path := range map[string]string{"a-fault": module, "softhsm2": store.Module} {
				if err := os.WriteFile(filepath.Join(conf, name+".module"), []byte("module: "+path+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			inner := testenv.WithEnv(t, program.Path(t), env...)
			script := testenv.Script(t, wire.Program, fmt.Sprintf(
				"exec unshare --mount sh -c 'mount --bind %s /usr/share/p11-kit/modules && exec %s'\n", conf, inner))
			h := &Handler{Timeout: 2 * time.Second, Connect: func(ctx context.Context) (helper.Conn, error) { return helper.StartPath(ctx, script) }}
			var answers []string
			if c.want == nil {
				answers = []string{fixtureToken.PIN}
			}
			if _, err := unlock(t, h, string(readVolume(t, "systemd257-rsa").Token), answers...); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestModulesThatOthersCouldHaveWrittenAreRefused: the helper runs them as root.
func TestModulesThatOthersCouldHaveWrittenAreRefused(t *testing.T) {
	t.Parallel()
	good := faulty(t, fixtureStore(t), "none")
	raw := string(readVolume(t, "systemd257-rsa").Token)
	dir := t.TempDir()
	copyTo := func(path string, mode os.FileMode) string {
		t.Helper()
		b, err := os.ReadFile(good.Module)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := copyTo(filepath.Join(dir, "open", "fault.so"), 0o644)
	if err := os.Chmod(filepath.Dir(open), 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.so")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		copyTo(filepath.Join(dir, "world.so"), 0o666): "world.so is writable by others",
		copyTo(filepath.Join(dir, "group.so"), 0o664): "group.so is writable by others",
		open:                          "open is writable by others",
		link:                          "open is writable by others",
		text:                          "loading PKCS#11 module",
		filepath.Join(dir, "none.so"): "no such file",
		dir:                           "not a regular file",
		"relative.so":                 "not absolute",
		libc(t):                       "it is not a PKCS#11 module",
	} {
		h := &Handler{Module: path, Connect: good.Connect}
		_, err := unlock(t, h, raw)
		if !errors.Is(err, tokens.ErrNotBuilt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if os.Geteuid() == 0 {
		foreign := copyTo(filepath.Join(dir, "foreign.so"), 0o644)
		if err := os.Chown(foreign, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := unlock(t, &Handler{Module: foreign, Connect: good.Connect}, raw); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("a stranger's file: %v", err)
		}
	}
}

// libc is a library that is not a module.
func libc(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("gcc", "-print-file-name=libc.so.6").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
