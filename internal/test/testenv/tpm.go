package testenv

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TPMOptions say which software TPM a test wants. The zero value is a new one on
// a unix socket.
type TPMOptions struct {
	// State is a folder with a tpm2-00.permall, which is copied. Empty: a TPM
	// that was made for this test alone, with the banks sha1 to sha512, no SRK
	// and a lockout after three wrong PINs.
	State string
	// TCP makes it listen on the loopback interface, which systemd and tpm2-tools
	// need, with the control channel one port higher.
	TCP bool
}

// TPM is a running swtpm. It serves one connection at a time.
type TPM struct {
	t       testing.TB
	dir     string
	port    int // 0: unix socket
	process *exec.Cmd
	mark    int // length of the log at the last Mark
}

// StartTPM runs swtpm until the end of the test. Its PCRs are all zero.
func StartTPM(t testing.TB, o TPMOptions) *TPM {
	t.Helper()
	Need(t, "swtpm")
	// Not t.TempDir: its path may be longer than a socket's may be.
	dir, err := os.MkdirTemp("", "swtpm.")
	if err != nil {
		t.Fatal(err)
	}
	m := &TPM{t: t, dir: dir}
	t.Cleanup(func() { m.Stop(); _ = os.RemoveAll(dir) })
	if o.State != "" {
		state, err := os.ReadFile(filepath.Join(o.State, "tpm2-00.permall"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tpm2-00.permall"), state, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if o.TCP {
		m.port = freePortPair(t)
	}
	m.Start()
	return m
}

// freePortPair finds a port that is free together with the next one.
func freePortPair(t testing.TB) int {
	t.Helper()
	for range 100 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = a.Close()
		if err == nil {
			_ = b.Close()
			return port
		}
	}
	t.Fatal("no two neighbouring ports are free")
	return 0
}

// Device is the value for --tpm2-device=; with TPMOptions.TCP systemd takes it too.
func (m *TPM) Device() string {
	if m.port != 0 {
		return fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", m.port)
	}
	return "swtpm:path=" + m.Socket()
}

// Socket is the path of the unix socket that carries plain commands and
// responses.
func (m *TPM) Socket() string { return filepath.Join(m.dir, "srv") }

// StateDir is the folder that holds the TPM's memory.
func (m *TPM) StateDir() string { return m.dir }

func (m *TPM) dial() (net.Conn, error) {
	if m.port != 0 {
		return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.port))
	}
	return net.Dial("unix", m.Socket())
}

// Start runs the TPM again after Stop or Kill: a power cycle, so the PCRs are
// zero and what was loaded is gone.
func (m *TPM) Start() {
	m.t.Helper()
	server, ctrl := "type=unixio,path="+m.Socket(), "type=unixio,path="+filepath.Join(m.dir, "ctrl")
	if m.port != 0 {
		server = fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", m.port)
		ctrl = fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", m.port+1)
	}
	m.process = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+m.dir, "--server", server, "--ctrl", ctrl,
		"--flags", "not-need-init,startup-clear", "--log", "file="+m.logFile()+",level=20")
	var output strings.Builder
	m.process.Stderr = &output
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		conn, err := m.dial()
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			m.Stop()
			m.t.Fatalf("swtpm does not listen: %v\n%s", err, output.String())
		}
	}
}

// Stop ends the TPM. What it keeps in non-volatile memory stays for Start.
func (m *TPM) Stop() { m.end(syscall.SIGTERM) }

// Shutdown tells the TPM that the power is about to go, as a machine does. Without
// it the next start counts as a wrong PIN if something with a PIN was used.
func (m *TPM) Shutdown() {
	m.t.Helper()
	m.run(0x8001, 0x145, []byte{0, 0}) // TPM2_Shutdown(TPM_SU_CLEAR)
}

// Kill pulls the plug: swtpm gets no chance to do anything more.
func (m *TPM) Kill() { m.end(os.Kill) }

func (m *TPM) end(how os.Signal) {
	if m.process == nil {
		return
	}
	_ = m.process.Process.Signal(how)
	_ = m.process.Wait()
	m.process = nil
}

// Reset is a power cycle.
func (m *TPM) Reset() {
	m.t.Helper()
	m.Stop()
	m.Start()
}

// Extend extends one PCR with a digest of the bank's length.
func (m *TPM) Extend(pcr int, bank string, digest []byte) {
	m.t.Helper()
	algs := map[string]uint16{"sha1": 4, "sha256": 0xb, "sha384": 0xc, "sha512": 0xd}
	cmd := binary.BigEndian.AppendUint32(nil, uint32(pcr))
	cmd = append(cmd, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0) // empty password
	cmd = binary.BigEndian.AppendUint32(cmd, 1)
	cmd = binary.BigEndian.AppendUint16(cmd, algs[bank])
	m.run(0x8002, 0x182, append(cmd, digest...))
}

// run sends one command and expects success.
func (m *TPM) run(tag uint16, code uint32, rest []byte) {
	m.t.Helper()
	conn, err := m.dial()
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	cmd := binary.BigEndian.AppendUint16(nil, tag)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(10+len(rest)))
	cmd = append(binary.BigEndian.AppendUint32(cmd, code), rest...)
	if _, err := conn.Write(cmd); err != nil {
		m.t.Fatal(err)
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(conn, head); err != nil {
		m.t.Fatal(err)
	}
	if rc := binary.BigEndian.Uint32(head[6:]); rc != 0 {
		m.t.Fatalf("TPM command %#x: response code %#x", code, rc)
	}
}

func (m *TPM) logFile() string { return filepath.Join(m.dir, "log") }

// TPMCommand is one command that the TPM received, and its answer.
type TPMCommand struct {
	Code     uint32 // TPM_CC: 0x15e is TPM2_Unseal
	Command  []byte
	Response []byte // empty if the TPM went away first
}

// Mark makes Commands return only what comes later.
func (m *TPM) Mark() {
	m.t.Helper()
	log, err := os.ReadFile(m.logFile())
	if err != nil {
		m.t.Fatal(err)
	}
	m.mark = len(log)
}

// Commands reads from swtpm's own log what it was sent since Mark.
func (m *TPM) Commands() []TPMCommand {
	m.t.Helper()
	log, err := os.ReadFile(m.logFile())
	if err != nil {
		m.t.Fatal(err)
	}
	return parseTPMLog(string(log[m.mark:]))
}

// parseTPMLog reads swtpm's log of level 20: a line with the kind and length of a
// message, then its bytes in hexadecimal, sixteen a line.
func parseTPMLog(log string) []TPMCommand {
	var list []TPMCommand
	var into *[]byte
	missing := 0
	for sc := bufio.NewScanner(strings.NewReader(log)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if missing > 0 {
			b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
			if err == nil {
				*into = append(*into, b...)
				missing -= len(b)
				continue
			}
		}
		if _, err := fmt.Sscanf(line, "SWTPM_IO_Read: length %d", &missing); err == nil {
			list = append(list, TPMCommand{})
			into = &list[len(list)-1].Command
		} else if _, err := fmt.Sscanf(line, "SWTPM_IO_Write: length %d", &missing); err == nil && len(list) > 0 {
			into = &list[len(list)-1].Response
		} else {
			missing = 0
		}
	}
	for i, c := range list {
		if len(c.Command) >= 10 {
			list[i].Code = binary.BigEndian.Uint32(c.Command[6:])
		}
	}
	return list
}
