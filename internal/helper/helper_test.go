package helper

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// TestMain lets copies of the test binary play the helper: the name of the copy
// says what it does.
// meal is what the test methods "eat" and "write" take at a time, bytes.
const meal = 64 << 20

func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	switch {
	case strings.HasPrefix(name, "luksmith-"):
		os.Exit(playHelper(name))
	case name == "parent":
		playParent()
	case name == "finder":
		playFinder()
	}
	os.Exit(m.Run())
}

// playParent starts a helper that hears nothing any more, not even the end of its
// input, and prints its number.
func playParent() {
	p, err := StartPath(context.Background(), filepath.Join(filepath.Dir(os.Args[0]), "luksmith-good"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = p.Call(context.Background(), Call{Method: "deaf", OnEvent: func(string) { fmt.Println(p.cmd.Process.Pid) }}, nil)
}

func playHelper(name string) int {
	switch name {
	case "luksmith-old":
		_ = send(os.Stdout, &message{Name: name, Version: "0.0.0"}, nil)
	case "luksmith-other":
		_ = Serve("something-else", os.Stdin, os.Stdout, nil)
	case "luksmith-broken":
		fmt.Fprintln(os.Stderr, "luksmith-broken: error while loading shared libraries: libfido2.so.1")
		return 127
	case "luksmith-mute":
		time.Sleep(time.Minute)
	default:
		if err := Confine(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := Serve(name, os.Stdin, os.Stdout, testMethods()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

func testMethods() map[string]Method {
	return map[string]Method{
		"reverse": func(_ context.Context, r *Request) (*Reply, error) {
			s := r.Secrets[0].Clone()
			slices.Reverse(s.Bytes())
			r.Notify("touch")
			return &Reply{Result: map[string]int{"n": s.Len()}, Secrets: []secret.Secret{s}}, nil
		},
		"environment": func(context.Context, *Request) (*Reply, error) { return &Reply{Result: os.Environ()}, nil },
		"fail": func(context.Context, *Request) (*Reply, error) {
			return nil, &Error{Code: "wrong-pin", Message: "no", Data: map[string]int{"left": 7}}
		},
		"hang": func(context.Context, *Request) (*Reply, error) { time.Sleep(time.Minute); return nil, nil },
		"deaf": func(_ context.Context, r *Request) (*Reply, error) {
			r.Notify("busy")
			_ = unix.Close(0) // whoever reads it hangs or fails, but nobody ends for it
			for {
				time.Sleep(time.Minute)
			}
		},
		"fork": func(_ context.Context, r *Request) (*Reply, error) {
			var o forkOptions
			if err := r.Decode(&o); err != nil {
				return nil, err
			}
			child := exec.Command("sleep", "60")
			child.Stdout, child.Stderr = os.Stdout, os.Stderr // keeps the pipes open
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: o.Leaves}
			if err := child.Start(); err != nil {
				return nil, err
			}
			r.Notify(strconv.Itoa(child.Process.Pid))
			if o.Crashes {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				time.Sleep(time.Minute)
			}
			return nil, nil
		},
		"eat": func(_ context.Context, r *Request) (*Reply, error) {
			var eaten [][]byte
			for range 64 { // 4 GiB in all
				b := make([]byte, meal)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				eaten = append(eaten, b)
				r.Notify("eaten")
			}
			return &Reply{Result: len(eaten)}, nil
		},
		"write": func(_ context.Context, r *Request) (*Reply, error) {
			fd, err := unix.MemfdCreate("written", 0)
			if err != nil {
				return nil, err
			}
			signal.Ignore(syscall.SIGXFSZ) // as a module may do
			b := make([]byte, meal)
			for n := int64(0); n < 64*meal; n += meal {
				if _, err := unix.Pwrite(fd, b, n); err != nil {
					return nil, err
				}
				r.Notify("written")
			}
			return nil, nil
		},
		"chatter": func(context.Context, *Request) (*Reply, error) {
			line := bytes.Repeat([]byte{'x'}, 1<<20)
			for range 8 {
				_, _ = os.Stderr.Write(line)
			}
			return nil, nil
		},
		"many": func(context.Context, *Request) (*Reply, error) {
			// What send refuses to send.
			_ = writeFrame(os.Stdout, kindJSON, fmt.Appendf(nil, `{"secrets":%d}`, MaxSecrets+1))
			for range MaxSecrets + 1 {
				_ = writeFrame(os.Stdout, kindSecret, []byte("s"))
			}
			time.Sleep(time.Minute)
			return nil, nil
		},
		"wait": func(ctx context.Context, _ *Request) (*Reply, error) { <-ctx.Done(); return nil, ctx.Err() },
		"crash": func(context.Context, *Request) (*Reply, error) {
			_ = unix.Kill(os.Getpid(), unix.SIGSEGV)
			time.Sleep(time.Minute)
			return nil, nil
		},
		"panic": func(context.Context, *Request) (*Reply, error) { panic("module misbehaved") },
		"flood": func(context.Context, *Request) (*Reply, error) {
			var head [5]byte
			head[0] = kindJSON
			binary.BigEndian.PutUint32(head[1:], 1<<30)
			_, _ = os.Stdout.Write(head[:])
			time.Sleep(time.Minute)
			return nil, nil
		},
	}
}

// program returns a copy of the test binary under another name.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.Link("/proc/self/exe", path); err == nil {
		return path
	}
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, name string) *Process {
	t.Helper()
	p, err := StartPath(t.Context(), program(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestCallCarriesSecretsAndEvents(t *testing.T) {
	for name, conn := range map[string]Conn{"process": start(t, "luksmith-good"), "pipe": Pipe("x", testMethods())} {
		for round := range 3 {
			in := secret.Copy(fmt.Appendf(nil, "abc%d", round))
			var events []string
			var result struct{ N int }
			out, err := conn.Call(t.Context(), Call{Method: "reverse", Secrets: []secret.Secret{in},
				OnEvent: func(e string) { events = append(events, e) }}, &result)
			if err != nil || len(out) != 1 {
				t.Fatalf("%s: %v, %d secrets", name, err, len(out))
			}
			if got, want := string(out[0].Bytes()), fmt.Sprintf("%dcba", round); got != want || result.N != 4 {
				t.Errorf("%s: got %s, %d; want %s", name, got, result.N, want)
			}
			if !slices.Equal(events, []string{"touch"}) {
				t.Errorf("%s: events %q", name, events)
			}
			secret.WipeAll(append(out, in))
		}
		if err := conn.Close(); err != nil {
			t.Errorf("%s: Close: %v", name, err)
		}
	}
}

func TestEmptySecretsDoNotBlockThePipe(t *testing.T) {
	conn := Pipe("x", map[string]Method{"echo": func(_ context.Context, r *Request) (*Reply, error) {
		return &Reply{Secrets: []secret.Secret{r.Secrets[0].Clone()}}, nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 3 {
		out, err := conn.Call(ctx, Call{Method: "echo", Secrets: []secret.Secret{{}}}, nil)
		if err != nil || len(out) != 1 || out[0].Len() != 0 {
			t.Fatalf("%v, %d secrets", err, len(out))
		}
	}
	_ = conn.Close()
}

func TestReportedErrorKeepsTheSession(t *testing.T) {
	p := start(t, "luksmith-good")
	for range 2 {
		_, err := p.Call(t.Context(), Call{Method: "fail"}, nil)
		var e *Error
		if !errors.As(err, &e) || e.Code != "wrong-pin" || e.Data["left"] != 7 {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := p.Call(t.Context(), Call{Method: "nonsense"}, nil); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("unknown method: %v", err)
	}
}

func TestEnvironmentCarriesNoSecretAndNoLibraries(t *testing.T) {
	for _, name := range []string{"PIN", "NEWPIN", "PASSWORD", "NEWPASSWORD", "CREDENTIALS_DIRECTORY", "LD_LIBRARY_PATH", "LD_AUDIT"} {
		t.Setenv(name, "hunter2")
	}
	t.Setenv("SOFTHSM2_CONF", "kept")
	var env []string
	if _, err := start(t, "luksmith-good").Call(t.Context(), Call{Method: "environment"}, &env); err != nil {
		t.Fatal(err)
	}
	if joined := strings.Join(env, "\n"); strings.Contains(joined, "hunter2") || !strings.Contains(joined, "SOFTHSM2_CONF=kept") {
		t.Errorf("environment of the helper:\n%s", joined)
	}
}

func TestHangingHelperIsKilledAtTheDeadline(t *testing.T) {
	for _, method := range []string{"hang", "wait"} {
		p := start(t, "luksmith-good")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := p.Call(ctx, Call{Method: method}, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", method, err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s took %v", method, took)
		}
		if err := unix.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("%s: the process is still there: %v", method, err)
		}
		if _, err := p.Call(t.Context(), Call{Method: "fail"}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: call on a dead session: %v", method, err)
		}
	}
}

func TestMuteHelperIsKilledWhileStarting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := StartPath(ctx, program(t, "luksmith-mute")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestCrashIsOneErrorLine(t *testing.T) {
	for method, want := range map[string]string{"crash": "SIGSEGV", "panic": "module misbehaved"} {
		_, err := start(t, "luksmith-good").Call(t.Context(), Call{Method: method}, nil)
		if !errors.Is(err, ErrCrashed) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestOversizedAnswerIsRefused(t *testing.T) {
	if _, err := start(t, "luksmith-good").Call(t.Context(), Call{Method: "flood"}, nil); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

func TestUnusableHelpers(t *testing.T) {
	for name, want := range map[string]string{
		"luksmith-old":    "luksmith-old is version 0.0.0, this program is version",
		"luksmith-other":  `calls itself "something-else"`,
		"luksmith-broken": "libfido2.so.1",
	} {
		_, err := StartPath(t.Context(), program(t, name))
		if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Find("luksmith-absent"); !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "/usr/lib/luksmith") {
		t.Errorf("absent: %v", err)
	}
}

func TestBusyHelperDiesWithItsParent(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"parent", "luksmith-good"} {
		if err := os.Rename(program(t, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "parent"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, _ := out.Read(line)
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !ends(pid) {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Error("the helper outlives a killed parent")
	}
}

// ends reports whether a process is gone, or will be soon.
func ends(pid int) bool {
	for range 250 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func FuzzReceive(f *testing.F) {
	var good bytes.Buffer
	_ = send(&good, &message{Method: "x"}, []secret.Secret{secret.Copy([]byte("s"))})
	f.Add(good.Bytes())
	f.Add([]byte{'J', 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{'J', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, secrets, err := receive(bytes.NewReader(b))
		if err == nil && (m == nil || len(secrets) != m.Secrets) {
			t.Error("message without content or with missing secrets")
		}
		if err == io.EOF && len(b) >= 5 {
			t.Error("a cut message looks like a clean end")
		}
		secret.WipeAll(secrets)
	})
}
