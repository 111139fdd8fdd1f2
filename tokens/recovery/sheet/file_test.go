package sheet

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/helper"
	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

func TestFileIsPrivate(t *testing.T) {
	for _, f := range []Format{PDF, PNG} {
		info, err := os.Stat(write(t, sample(t), f))
		if err != nil || info.Mode() != 0o600 || info.Size() < 10000 {
			t.Errorf("%v, mode %v, %d bytes", err, info.Mode(), info.Size())
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "s.pdf"), filepath.Join(dir, "link.png")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o644), os.Symlink(filepath.Join(dir, "elsewhere"), link)); err != nil {
		t.Fatal(err)
	}
	connect := at(program.Path(t))
	for _, p := range []string{path, link} {
		f, err := create(t.Context(), p, connect)
		if !errors.Is(err, fs.ErrExist) || f != nil || !strings.HasSuffix(err.Error(), "it is not overwritten") {
			t.Errorf("%s: %v", p, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target of the link: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	connect := at(program.Path(t))
	for _, name := range []string{"s", "s.jpg", "pdf", "s.pdf.gz"} {
		if _, err := create(t.Context(), filepath.Join(dir, name), connect); !errors.Is(err, tokens.ErrUsage) {
			t.Errorf("%s: %v, want ErrUsage", name, err)
		}
	}
	if _, err := create(t.Context(), filepath.Join(dir, "none", "s.pdf"), connect); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	reserve(t, filepath.Join(dir, "S.PDF")).Discard()
}

// TestMissingProgramIsFoundOutFirst: before a file is made, and so before anything
// is written to the volume.
func TestMissingProgramIsFoundOutFirst(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken.pdf")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		start connector
		want  string
	}{
		"absent": {func(ctx context.Context) (helper.Conn, error) { return helper.Start(ctx, "luksmith-absent") },
			"recovery sheets are not installed (no luksmith-absent in "},
		"does not start": {at(testenv.WithEnv(t, "/nonexistent/"+Program)),
			"recovery sheets are not installed (luksmith-sheet does not start: "},
	} {
		for _, path := range []string{filepath.Join(dir, "s.pdf"), taken} {
			_, err := create(t.Context(), path, c.start)
			if !errors.Is(err, tokens.ErrNotBuilt) || !strings.HasPrefix(err.Error(), c.want) || !strings.HasSuffix(err.Error(), ")") {
				t.Errorf("%s: %v", name, err)
			}
			if h, ok := errors.AsType[interface {
				error
				Hint() string
			}](err); !ok || !strings.Contains(h.Hint(), Program) {
				t.Errorf("%s: no hint", name)
			}
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestProgramIsFoundBesideTheCommand runs a copy of the tests, as the command, with
// the helper program in the same folder, and then with another in its place.
func TestProgramIsFoundBesideTheCommand(t *testing.T) {
	if path := os.Getenv("LUKSMITH_TEST_SHEET"); path != "" {
		f, err := Create(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Write(t.Context(), sample(t)); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	command, page := filepath.Join(dir, "command"), filepath.Join(dir, "page.pdf")
	run := func(programFile string) (string, error) {
		for from, to := range map[string]string{"/proc/self/exe": command, programFile: filepath.Join(dir, Program)} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, b, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(command, "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "LUKSMITH_TEST_SHEET="+page)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(program.Path(t)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.HasPrefix(string(b), "%PDF-") {
		t.Errorf("no page: %v", err)
	}
	if out, err := run("/bin/false"); err == nil || !strings.Contains(out, "recovery sheets are not installed (luksmith-sheet does not start: ") {
		t.Errorf("with another program in its place: %v\n%s", err, out)
	}
}

func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.pdf")
	f := reserve(t, path)
	f.Discard()
	f.Discard()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unused file is still there: %v", err)
	}
	checkEnded(t, f)
	f = reserve(t, path)
	if err := f.Write(t.Context(), sample(t)); err != nil {
		t.Fatal(err)
	}
	f.Discard()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("Discard after Write: %v", err)
	}
	checkEnded(t, f)
}

// checkEnded reports a helper that still answers.
func checkEnded(t *testing.T, f *File) {
	t.Helper()
	if _, err := f.helper.Call(t.Context(), helper.Call{Method: MethodDraw}, nil); !errors.Is(err, helper.ErrCrashed) {
		t.Errorf("the helper is still there: %v", err)
	}
}

func TestFullDiskLeavesNoFile(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		testenv.NotApplicable(t, "no tmpfs can be mounted: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	for _, name := range []string{"s.pdf", "s.png"} {
		path := filepath.Join(dir, name)
		f := reserve(t, path)
		err := f.Write(t.Context(), sample(t))
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want no space left", err)
		}
		checkGone(t, f, path)
	}
}

// checkGone reports what a failed Write leaves.
func checkGone(t *testing.T, f *File, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a sheet is left: %v", err)
	}
	checkEnded(t, f)
}

func TestFailedDrawingLeavesNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.png")
	for _, text := range []string{"", "hunter2", "\u202ecukjrktc-nehcrhkg-gucbrgte-jerhrcui-gukftecf-dlinvdgr-vhljnelf-jjbdbfgd"} {
		bad := *sample(t)
		bad.Key = secret.Copy([]byte(text))
		f := reserve(t, path)
		err := f.Write(t.Context(), &bad)
		if err == nil || !strings.Contains(err.Error(), "the sheet's key is not a recovery key") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("key %q: %v", text, err)
		}
		checkGone(t, f, path)
		bad.Key.Wipe()
	}
	stopped := errors.New("stopped by a test")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	f := reserve(t, path)
	if err := f.Write(ctx, sample(t)); !errors.Is(err, stopped) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a sheet is left: %v", err)
	}
}

func TestUsualPaper(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want Paper
	}{
		{nil, A4},
		{map[string]string{"LANG": "C.UTF-8"}, A4},
		{map[string]string{"LANG": "en_US.UTF-8"}, Letter},
		{map[string]string{"LANG": "de_DE.UTF-8@euro"}, A4},
		{map[string]string{"LANG": "fr_CA"}, Letter},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_PAPER": "en_GB.UTF-8"}, A4},
		{map[string]string{"LC_PAPER": "en_GB.UTF-8", "LC_ALL": "es_MX@x"}, Letter},
		{map[string]string{"LANG": "en_US.UTF-8", "PAPERSIZE": "a4"}, A4},
		{map[string]string{"PAPERSIZE": "Letter"}, Letter},
	} {
		if got := UsualPaper(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %d, want %d", c.env, got, c.want)
		}
	}
}
