package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
)

// cmdTree puts a program of systemd 257 before others: `tree NAME`.
func cmdTree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tree NAME")
	}
	t := devicesOf(ts).t
	tree := testenv.Systemd257(t)
	tree.NeedProgram(t, args[0])
	script := "#!/bin/sh\nexec " + strings.Join(tree.Outside(t, args[0]), " ") + " \"$@\"\n"
	dir, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	ts.Check(os.WriteFile(filepath.Join(dir, args[0]), []byte(script), 0o755))
}

// caller starts the command as `varlinkctl call exec:` does.
type caller struct {
	t      *testing.T
	socket *net.UnixConn
}

// callerOf prepares the command, which is not started yet.
func callerOf(t *testing.T, command string) (*caller, *exec.Cmd) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/bash", "-c", `LISTEN_PID=$$ exec -a cryptenroll "$0"`, command)
	cmd.Env = append(os.Environ(), "LUKSMITH_TEST_COMMAND=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=varlink")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	t.Cleanup(func() { _ = theirs.Close(); _ = conn.Close() })
	return &caller{t, conn.(*net.UnixConn)}, cmd
}

// call sends a call, and a file if there is one, and returns the first reply.
func (c *caller) call(method, parameters string, file *os.File) string {
	c.t.Helper()
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	message := fmt.Sprintf(`{"method":%q,"parameters":%s}`, method, parameters)
	if _, _, err := c.socket.WriteMsgUnix([]byte(message+"\x00"), rights, nil); err != nil {
		c.t.Fatal(err)
	}
	_ = c.socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	reply, err := bufio.NewReader(c.socket).ReadString(0)
	if err != nil {
		c.t.Fatalf("after %q: %v", reply, err)
	}
	return strings.TrimSuffix(reply, "\x00")
}

// TestVarlinkKeyFileComesAsDescriptor reads it from its start, and tells calls of one
// connection apart.
func TestVarlinkKeyFileComesAsDescriptor(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := luks2test.New(t)
	c, cmd := callerOf(t, exe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	key, err := os.Open(secretFile(t, luks2test.Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	if _, err := key.Seek(3, 0); err != nil {
		t.Fatal(err)
	}
	const call = `{"node":%q,"mechanism":"password","password":"fdpassword","unlockKeyFileDescriptorIndex":%d}`
	for _, step := range []struct {
		index int
		file  *os.File
		want  string
	}{{0, nil, "InvalidParameter"}, {1, key, "InvalidParameter"}, {-1, key, "InvalidParameter"}, {0, key, `"keyslot":1`}} {
		if got := c.call("io.systemd.CryptEnroll.Enroll", fmt.Sprintf(call, v.Path, step.index), step.file); !strings.Contains(got, step.want) {
			t.Errorf("descriptor %d: %s, want %s", step.index, got, step.want)
		}
	}
	if !v.Opens(t, "fdpassword") {
		t.Error("the new passphrase does not open the volume")
	}
	_ = c.socket.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the command ends with %v", err)
	}
}

// TestRecoveryKeyIsTakenBackWhenTheCallerHangsUp: nobody would get the key.
func TestRecoveryKeyIsTakenBackWhenTheCallerHangsUp(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := luks2test.New(t)
	c, cmd := callerOf(t, exe)
	parameters := fmt.Sprintf(`{"node":%q,"mechanism":"recovery","unlockPassword":%q,"wipeTypes":["password"]}`, v.Path, luks2test.Passphrase)
	if _, err := c.socket.Write([]byte(`{"method":"io.systemd.CryptEnroll.Enroll","parameters":` + parameters + "}\x00")); err != nil {
		t.Fatal(err)
	}
	_ = c.socket.Close()
	_ = cmd.Run()
	if !v.Opens(t, luks2test.Passphrase) || len(readHeader(t, v).Keyslots) != 1 {
		t.Errorf("keyslots %+v", readHeader(t, v).Keyslots)
	}
}

// overVarlink passes the old passphrase and gets a recovery key in the reply.
func overVarlink(t *testing.T, r *secretRun) {
	c, cmd := callerOf(t, r.command)
	testenv.HoldAtExit(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	reply := c.call("io.systemd.CryptEnroll.Enroll", fmt.Sprintf(`{"node":%q,"mechanism":"recovery","unlockPassword":%q}`, r.volume.Path, r.old), nil)
	_, key, _ := strings.Cut(reply, `"recoveryKey":"`)
	r.output, _, _ = strings.Cut(key, `"`)
	reply = c.call("io.systemd.CryptEnroll.Enroll", fmt.Sprintf(`{"node":%q,"mechanism":"password","unlockPassword":%q,"password":%q}`, r.volume.Path, r.old, r.fresh), nil)
	if !strings.Contains(reply, `"keyslot":2`) || !r.volume.Opens(t, r.fresh) {
		t.Errorf("the passphrase is not enrolled: %s", reply)
	}
	_ = c.socket.Close()
	r.pid = testenv.AtExit(t, cmd)
}
