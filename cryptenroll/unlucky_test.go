package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// TestFullDiskLeavesTheOldKeys: an image in a file system without room, here a
// limit on the size of files.
func TestFullDiskLeavesTheOldKeys(t *testing.T) {
	t.Parallel()
	for _, wipe := range []string{"", "--wipe-slot=all"} {
		v := luks2test.New(t)
		before, err := os.ReadFile(v.Path)
		if err != nil {
			t.Fatal(err)
		}
		cmd := limited(commandLine(t, oldPassphrase, strings.Fields("--recovery-key "+wipe+" "+v.Path)...))
		out, _ := cmd.CombinedOutput()
		if !bytes.Contains(out, []byte("writing "+v.Path+": file too large")) || cmd.ProcessState.ExitCode() != cli.ExitFailure {
			t.Errorf("%q: status %d: %s", wipe, cmd.ProcessState.ExitCode(), out)
		}
		if now, _ := os.ReadFile(v.Path); !bytes.Equal(now[:32<<10], before[:32<<10]) || !v.Opens(t, v.Passphrase) {
			t.Errorf("%q: the header changed", wipe)
		}
	}
	v := luks2test.New(t)
	copied := filepath.Join(t.TempDir(), "backup")
	out, err := limited(commandLine(t, nil, "backup", v.Path, copied)).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("file too large")) {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(copied); !os.IsNotExist(err) {
		t.Errorf("an incomplete backup is left: %v", err)
	}
}

// limited runs a command with files of at most 64 KiB.
func limited(cmd *exec.Cmd) *exec.Cmd {
	prepared := exec.Command("sh", append([]string{"-c", `ulimit -f 128 && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)...)
	prepared.Env = cmd.Env
	return prepared
}

// TestDeniedIsSaidBeforeAnyQuestion: also when what fails is the writing, which
// comes long after a passphrase was typed or a key touched.
func TestDeniedIsSaidBeforeAnyQuestion(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // to be somebody else
	const nobody = 65534
	dir, err := os.MkdirTemp("", "luksmith-denied.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v := luks2test.New(t)
	program, volume := filepath.Join(dir, "cryptenroll"), filepath.Join(dir, "volume.img")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "cp", exe, program)
	testenv.Run(t, "cp", v.Path, volume)
	testenv.Run(t, "chmod", "755", dir, program)
	for mode, args := range map[os.FileMode][]string{0o444: {"--recovery-key", volume}, 0o400: {"list", volume}} {
		if err := os.Chmod(volume, mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "LUKSMITH_TEST_COMMAND=1")
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != cli.ExitWrongDevice ||
			!strings.Contains(string(out), "permission denied") || !strings.Contains(string(out), "hint: try again as root") {
			t.Errorf("%s: status %d: %s", args[0], got, out)
		}
	}
}

// hold takes the lock of an image, as another process would.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}

func TestNobodyFailsWhileTheVolumeIsLockedForThreeSeconds(t *testing.T) {
	t.Parallel()
	v := luks2test.New(t)
	release := hold(t, v.Path)
	var wg sync.WaitGroup
	for _, args := range [][]string{{"--recovery-key"}, {"list"}, {"test"}, {"--recovery-key", "--label=second"}} {
		cmd := commandLine(t, oldPassphrase, append(args, v.Path)...)
		cmd.Stdout = new(bytes.Buffer)
		wg.Go(func() {
			start := time.Now()
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %v", args, err)
			}
			if took := time.Since(start); took < 2*time.Second {
				t.Errorf("%v did not wait: %v", args, took)
			}
		})
	}
	time.Sleep(3 * time.Second)
	release()
	wg.Wait()
	if n := len(readHeader(t, v).Keyslots); n != 3 {
		t.Errorf("%d keyslots, want 3", n)
	}
}

func TestCtrlCEndsTheWaitForTheLock(t *testing.T) {
	testenv.NeedRoot(t) // to see what the command has open
	t.Parallel()
	v := luks2test.New(t)
	hold(t, v.Path)
	cmd := commandLine(t, oldPassphrase, "--recovery-key", v.Path)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = new(bytes.Buffer), &messages
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); !hasOpen(cmd.Process.Pid, v.Path); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			t.Fatal("the command does not open the volume")
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	stop := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != cli.ExitCancelled || !strings.Contains(messages.String(), "interrupted") {
		t.Errorf("status %d: %s", got, messages.String())
	}
}

// hasOpen reports whether a process has the file open.
func hasOpen(pid int, path string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == path {
			return true
		}
	}
	return false
}

// TestEightEnrolmentsAtOnceWithCryptsetup: none is lost, neither ours nor those of
// cryptsetup that succeed, and ours all succeed.
func TestEightEnrollmentsAtOnceWithCryptsetup(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "cryptsetup")
	v := luks2test.New(t, luks2test.WithFormat(func(o *luks2.FormatOptions) { o.HeaderSize = 32 << 10 }))
	first := secretFile(t, v.Passphrase)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var keys []string
	keep := func(key string) {
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, key)
	}
	for range 8 {
		cmd := commandLine(t, oldPassphrase, "--recovery-key", v.Path)
		wg.Go(func() {
			key, err := cmd.Output()
			if err != nil {
				t.Errorf("an enrolment failed: %v", err)
			}
			keep(strings.TrimSpace(string(key)))
		})
	}
	for range 4 {
		key := randomText()
		file := secretFile(t, key)
		wg.Go(func() {
			for range 100 { // it gives up when somebody else was first
				if exec.Command("cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
					"--key-file", first, v.Path, file).Run() == nil {
					keep(key)
					return
				}
			}
		})
	}
	wg.Wait()
	slots := make(map[int]bool)
	for _, key := range append(keys, v.Passphrase) {
		slots[openedBy(t, v, key)] = true
	}
	h := readHeader(t, v)
	if len(keys) < 8 || len(slots) != len(keys)+1 || len(h.Keyslots) != len(slots) || len(h.Tokens) != 8 {
		t.Errorf("%d keys open %d keyslots; the header has %d and %d tokens", len(keys), len(slots), len(h.Keyslots), len(h.Tokens))
	}
}

// openedBy is the keyslot that a text opens, -1 if there is none.
func openedBy(t *testing.T, v *luks2test.Volume, text string) int {
	t.Helper()
	passphrase := secret.Copy([]byte(text))
	defer passphrase.Wipe()
	key, err := v.Device.OpenKeyslot(t.Context(), luks2.AnySlot, passphrase)
	if err != nil {
		t.Errorf("a key is lost: %v", err)
		return -1
	}
	defer key.Wipe()
	return key.Slot
}

// TestFileThatIsMarkedAsImmutableIsRefusedAtOnce: its permissions say that it may be
// written, and the passphrase was asked for before the first write failed.
func TestFileThatIsMarkedAsImmutableIsRefusedAtOnce(t *testing.T) {
	v := luks2test.New(t)
	f, err := os.Open(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		defer func() { _ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags)) }()
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|immutable))
	}
	if err != nil {
		testenv.NotApplicable(t, "no file can be made immutable here: "+err.Error())
	}
	got := runCommand(t, alone(t, nil, "--recovery-key", v.Path))
	if got.status != cli.ExitWrongDevice || !strings.Contains(got.stderr, "cannot be written: it is marked as immutable (chattr +i)") {
		t.Errorf("status %d: %s", got.status, got.stderr)
	}
}
