package askpass

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// askFile waits for the one ask.* file of a folder and returns its content.
func askFile(t *testing.T, dir string) (path, content string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(dir, "ask.*")); len(list) == 1 {
			b, err := os.ReadFile(list[0])
			if err != nil {
				t.Fatal(err)
			}
			return list[0], string(b)
		}
	}
	t.Fatal("no question for agents appears")
	return "", ""
}

// askFiles are the ask.* files of a folder now, by path.
func askFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	list, _ := filepath.Glob(filepath.Join(dir, "ask.*"))
	for _, path := range list {
		if b, err := os.ReadFile(path); err == nil { // it may be gone by now
			files[path] = string(b)
		}
	}
	return files
}

func member(content, key string) string {
	for line := range strings.Lines(content) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSuffix(v, "\n")
		}
	}
	return ""
}

// reply sends a packet to the question's socket.
func reply(t *testing.T, content, packet string) {
	t.Helper()
	conn, err := net.Dial("unixgram", member(content, "Socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(packet)); err != nil {
		t.Fatal(err)
	}
}

// empty fails unless nothing is left in the folder.
func empty(t *testing.T, dir string) {
	t.Helper()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAgentFileIsExact(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ask-password") // is made
	fileName, socketName := regexp.MustCompile(`^ask\.[0-9]+$`), regexp.MustCompile(`^`+regexp.QuoteMeta(dir)+`/sck\.[0-9a-f]+$`)
	o := Options{AgentDir: dir, ID: AgentID("/dev/disk/by-uuid/x"), Icon: "drive-harddisk", Cache: CacheYes}
	for _, c := range []struct {
		echo  Echo
		p     tokens.Prompt
		wants string
	}{
		{EchoMasked, tokens.Prompt{Text: "Please enter passphrase for disk grün (home)", Credential: "passphrase", Keyring: "cryptsetup-luksmith-test"},
			"AcceptCached=1\nEcho=0\nNotAfter=0\nSilent=0\nMessage=Please enter passphrase for disk grün (home):\nIcon=drive-harddisk\nId=cryptsetup:/dev/disk/by-uuid/x\n"},
		{EchoText, tokens.Prompt{Text: "PIN", Credential: "fido2-pin", TriesLeft: 3, Attempt: 1, Keyring: "cryptsetup-luksmith-test"},
			"AcceptCached=0\nEcho=1\nNotAfter=0\nSilent=0\nMessage=PIN, 3 tries left:\nIcon=drive-harddisk\n"},
		{EchoSilent, tokens.Prompt{Text: "PIN\nSocket=/evil\x1b", TriesLeft: 1},
			"AcceptCached=0\nEcho=0\nNotAfter=0\nSilent=1\nMessage=PIN\\nSocket=/evil\\x1b, last try:\nIcon=drive-harddisk\n"},
	} {
		o.Echo = c.echo
		p := New(o).Start(t.Context(), Question{Prompt: c.p})
		path, content := askFile(t, dir)
		socket := member(content, "Socket")
		if want := fmt.Sprintf("[Ask]\nPID=%d\nSocket=%s\n%s", os.Getpid(), socket, c.wants); content != want {
			t.Errorf("content\n%s\nwant\n%s", content, want)
		}
		if !fileName.MatchString(filepath.Base(path)) || !socketName.MatchString(socket) {
			t.Errorf("names %s and %s", path, socket)
		}
		for file, mode := range map[string]os.FileMode{path: 0o644, socket: os.ModeSocket | 0o600, dir: os.ModeDir | 0o755} {
			if info, err := os.Stat(file); err != nil || info.Mode() != mode {
				t.Errorf("%s: mode %v, %v, want %v", file, info.Mode(), err, mode)
			}
		}
		reply(t, content, "+answer\x00")
		answer, err := p.Wait()
		if err != nil || len(answer.Secrets) != 1 || string(answer.Secrets[0].Bytes()) != "answer" || answer.Source != FromAgent {
			t.Errorf("%+v, %v", answer, err)
		}
		answer.Wipe()
		empty(t, dir)
	}
}

func TestAgentReplies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		packets []string
		want    []string
		err     error
	}{
		"one, ended by NUL":       {[]string{"+one\x00"}, []string{"one"}, nil},
		"one, ended by the end":   {[]string{"+one"}, []string{"one"}, nil},
		"several":                 {[]string{"+one\x00two\x00\x00"}, []string{"one", "two", ""}, nil},
		"empty password":          {[]string{"+"}, []string{""}, nil},
		"empty password with NUL": {[]string{"+\x00"}, []string{""}, nil},
		"cancelled":               {[]string{"-"}, nil, tokens.ErrCancelled},
		"nonsense is ignored":     {[]string{"", "x", "\x00+", "+" + strings.Repeat("x", maxReply), "+right"}, []string{"right"}, nil},
		"long":                    {[]string{"+" + strings.Repeat("y", maxReply-1)}, []string{strings.Repeat("y", maxReply-1)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := New(Options{AgentDir: dir}).Start(t.Context(), Question{Prompt: tokens.Prompt{Text: "PIN"}})
			_, content := askFile(t, dir)
			for _, packet := range c.packets {
				reply(t, content, packet)
			}
			answer, err := p.Wait()
			defer answer.Wipe()
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			var got []string
			for _, s := range answer.Secrets {
				got = append(got, string(s.Bytes()))
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") || len(got) != len(c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			empty(t, dir)
		})
	}
}

// TestStrangersAreIgnored: only root and our own user may answer.
func TestStrangersAreIgnored(t *testing.T) {
	t.Parallel()
	credentials := func(uid uint32) []byte { return unix.UnixCredentials(&unix.Ucred{Pid: 1, Uid: uid, Gid: 0}) }
	own := uint32(os.Geteuid())
	for name, c := range map[string]struct {
		control []byte
		want    bool
	}{
		"root":           {credentials(0), true},
		"our own user":   {credentials(own), true},
		"somebody":       {credentials(own + 1000), false},
		"nobody":         {nil, false},
		"descriptors":    {unix.UnixRights(0), false},
		"both":           {append(credentials(0), unix.UnixRights(0)...), false},
		"cut short":      {credentials(0)[:10], false},
		"wrong protocol": {make([]byte, 32), false},
	} {
		if got := trusted(c.control); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDescriptorsAreNotKept: a reply that brings file descriptors leaves none
// open.
func TestDescriptorsAreNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := New(Options{AgentDir: dir}).Start(t.Context(), Question{Prompt: tokens.Prompt{Text: "PIN"}})
	_, content := askFile(t, dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sender, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sender)
	to := &unix.SockaddrUnix{Name: member(content, "Socket")}
	if err := unix.Sendmsg(sender, []byte("+x"), unix.UnixRights(int(w.Fd())), to, 0); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	answer, err := p.Wait()
	if err != nil || texts(answer.Secrets) != "x" {
		t.Fatalf("%q, %v", texts(answer.Secrets), err)
	}
	answer.Wipe()
	_ = r.SetReadDeadline(time.Now().Add(patience))
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("somebody holds the descriptor: %v", err)
	}
	_ = r.Close()
}

func TestAgentDeadline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	p := New(Options{AgentDir: dir}).Start(ctx, Question{Prompt: tokens.Prompt{Text: "PIN"}})
	_, content := askFile(t, dir)
	var notAfter int64
	if _, err := fmt.Sscan(member(content, "NotAfter"), &notAfter); err != nil {
		t.Fatal(err)
	}
	if ms := notAfter/1000 - now.Nano()/1e6; ms < 150 || ms > 1200 {
		t.Errorf("NotAfter is %d ms from now", ms)
	}
	if _, err := p.Wait(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	empty(t, dir)
}

func TestAgentFolderCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := write(t, t.TempDir(), "file", "", 0o600)
	_, err := ask(t, New(Options{AgentDir: filepath.Join(file, "ask-password")}), pinPrompt)
	if !errors.Is(err, tokens.ErrNoPrompt) || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}

// TestPINQuestionsHaveNoId: agents that know a volume by its Id answer with its
// passphrase, and three of those lock a card. systemd sets none for PINs.
func TestPINQuestionsHaveNoId(t *testing.T) {
	t.Parallel()
	for _, credential := range []string{"tpm2-pin", "fido2-pin", "pkcs11-pin", "toy-pin", ""} {
		dir := t.TempDir()
		p := New(Options{AgentDir: dir, ID: AgentID("/dev/x")}).Start(t.Context(), Question{Prompt: tokens.Prompt{Text: "PIN", Credential: credential}})
		if _, content := askFile(t, dir); member(content, "Message") == "" || strings.Contains(content, "Id=") {
			t.Errorf("%q: %s", credential, content)
		}
		p.Cancel()
		_, _ = p.Wait()
	}
}

func TestAgentID(t *testing.T) {
	t.Parallel()
	for device, want := range map[string]string{
		"/dev/disk/by-uuid/ab-c":  "cryptsetup:/dev/disk/by-uuid/ab-c",
		"/tmp/a b'c\"d\\e\n\x01ü": `cryptsetup:/tmp/a b\'c\"d\\e\n\001\303\274`,
		"\a\b\f\r\t\v\x7f":        `cryptsetup:\a\b\f\r\t\v\177`,
	} {
		if got := AgentID(device); got != want {
			t.Errorf("%q gives %s, want %s", device, got, want)
		}
	}
}

func FuzzAgentFile(f *testing.F) {
	f.Add("Please enter passphrase", "cryptsetup:/dev/sda2")
	f.Add("a\nSocket=/x", "\r\n[Ask]\n")
	f.Fuzz(func(t *testing.T, message, id string) {
		file := agentFile{socket: "/run/s", message: message, id: id, icon: "i"}
		lines := strings.Split(strings.TrimSuffix(file.text(), "\n"), "\n")
		want := []string{"[Ask]", "PID=", "Socket=/run/s", "AcceptCached=0", "Echo=0", "NotAfter=0", "Silent=0", "Message=", "Icon=i", "Id="}
		if message == "" {
			want = append(want[:7], want[8:]...)
		}
		if id == "" {
			want = want[:len(want)-1]
		}
		if len(lines) != len(want) {
			t.Fatalf("%q", lines)
		}
		for i := range want {
			if !strings.HasPrefix(lines[i], want[i]) || strings.ContainsAny(lines[i], "\r\x00\x1b") {
				t.Fatalf("line %d: %q", i, lines[i])
			}
		}
	})
}

func FuzzAgentReply(f *testing.F) {
	for _, seed := range []string{"", "+", "-", "+a\x00b", "+\x00\x00", "x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		list, err := parseReply(packet)
		defer secret.WipeAll(list)
		valid := len(packet) > 0 && packet[0] == '+'
		if valid != (err == nil) || valid != (len(list) > 0) {
			t.Fatalf("%q gives %d answers, %v", packet, len(list), err)
		}
		if valid {
			joined := joinList(list)
			defer joined.Wipe()
			if got := "+" + string(joined.Bytes()); got != string(packet) && got+"\x00" != string(packet) {
				t.Fatalf("%q comes back as %q", packet, got)
			}
		}
	})
}
