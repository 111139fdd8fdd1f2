package fido2

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/tokens"
)

func TestSaltFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, n int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		path string
		is   error
		want string
	}{
		"short":  {write("short", 31), tokens.ErrUsage, "fewer than 32 bytes"},
		"long":   {write("long", 33), tokens.ErrUsage, "more than 32 bytes"},
		"huge":   {"/dev/zero", tokens.ErrUsage, "more than 32 bytes"},
		"empty":  {write("empty", 0), tokens.ErrUsage, "fewer than 32 bytes"},
		"absent": {filepath.Join(dir, "absent"), os.ErrNotExist, "opening the salt file"},
	} {
		_, err := (&Handler{SaltFile: tt.path}).salt(t.Context(), "uuid")
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, err := (&Handler{SaltFile: write("right", 32)}).salt(t.Context(), "uuid")
	if err != nil || s.Len() != 32 {
		t.Errorf("%v", err)
	}
	s.Wipe()
}

// The server of a salt sees what for, as with systemd.
func TestSaltSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		peer <- c.RemoteAddr().String()
		_, _ = c.Write(make([]byte, 32))
		_ = c.Close()
	}()
	s, err := (&Handler{SaltFile: path}).salt(t.Context(), "the-uuid")
	if err != nil || s.Len() != 32 {
		t.Fatal(err)
	}
	s.Wipe()
	if name := <-peer; !strings.HasSuffix(name, "/cryptenroll-fido2-salt/the-uuid") {
		t.Errorf("peer is %q", name)
	}
}
